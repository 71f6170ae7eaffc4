"""The `llm-qfl` command. It starts Flower and follows the run; it never imports the apps."""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> int:
    """Run the `llm-qfl` command.

    Parameters
    ----------
    arguments : list of str, optional
        Words after the command's name; the process's own if absent.

    Returns
    -------
    int
        Exit code: 0 done, 1 the run failed, 2 a mistake of the user's, 130 interrupted.
    """
    from llm_qfl.cli.app import dispatch  # here, so that importing the door does no work

    return dispatch(arguments)
