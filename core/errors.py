"""Errors that a user caused and can correct: one line, no traceback.

Every message follows one template: what was given, what is accepted, what to do.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in settings, data or environment that the user can correct.

    Entry points print ``str(error)`` and exit non-zero; they show no traceback.

    Parameters
    ----------
    given : str
        What was found, with its value; or the whole message.
    accepted : str, optional
        What would have been accepted.
    fix : str, optional
        What the user should do.
    elsewhere : str, optional
        What other machines may read in the place of `given`, where that may quote a row.

    Attributes
    ----------
    elsewhere : str
        The whole message for other machines; empty: they may read it as it is.
    """

    elsewhere = ""

    def __init__(
        self, given: str, accepted: str = "", fix: str = "", *, elsewhere: str = ""
    ) -> None:
        super().__init__(explain(given, accepted, fix) if accepted else given)
        if elsewhere:
            self.elsewhere = explain(elsewhere, accepted, fix) if accepted else elsewhere


class SettingsError(UserError):
    """A setting is unknown, of the wrong type, out of bounds, or would be ignored."""


class DataError(UserError):
    """Data is missing, malformed, or cannot be learned from."""


class ModelError(UserError):
    """A language model is missing, gated, corrupt or unsuitable."""


class BackendError(UserError):
    """A quantum backend is unknown, not installed or not reachable."""


class BudgetError(BackendError):
    """A budget does not pay for the next job of a device."""


def explain(given: str, accepted: str, fix: str) -> str:
    """Build an error message of the house template.

    Parameters
    ----------
    given : str
        What was found, with its value.
    accepted : str
        What would have been accepted.
    fix : str
        What the user should do.

    Returns
    -------
    str
        ``"<given>; accepted: <accepted>; <fix>."``; a fix that is a question keeps its mark.
    """
    return f"{given}; accepted: {accepted}; {fix}{'' if fix.endswith('?') else '.'}"


def short_message(error: BaseException) -> str:
    """Return one line of another library's exception, at most 200 characters.

    Bindings to C++ add every signature that they know and the objects that they met.
    """
    text = str(error).partition("The following argument types")[0]
    return " ".join(text.split())[:200].rstrip(".: ") or type(error).__name__


def unexpected_error(error: BaseException) -> str:
    """Describe in one line an error that is no known mistake of the user."""
    return f"{type(error).__name__}: {short_message(error)}"
