"""`llm-qfl report`: make a run's report again, in a process of its own.

The launcher does not import the apps, and the report draws with matplotlib.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from core import UserError, real_path
from llm_qfl.cli.children import ChildFailedError, call_module
from llm_qfl.cli.formatting import one_line


def remake_report(run: Path) -> int:
    """Make ``report.html`` in a results folder and say where it is.

    Parameters
    ----------
    run : Path
        A run's results folder.

    Returns
    -------
    int
        0, or 1 if the report could not be made.

    Raises
    ------
    UserError
        If the folder holds no run.
    """
    folder = real_path(run)
    if not any(os.path.isfile(folder / name) for name in ("config.json", "metrics.jsonl")):
        raise UserError(
            f"no run in {str(run)!r}",
            "a results folder, for instance runs/latest",
            "name one that holds config.json or metrics.jsonl",
        )
    try:
        _, *damaged = call_module("reporting", [str(folder)]).splitlines()
    except ChildFailedError as error:
        print(f"llm-qfl: the report was not made: {error}", file=sys.stderr)
        return 1
    for line in damaged:
        print(f"llm-qfl: damaged: {one_line(line)}", file=sys.stderr)
    print(folder / "report.html")
    return 0
