"""Which characters may stand in names, and how any text is shown to people.

The only place that decides it: readers of data refuse such names with `hidden_character`, and
whatever is printed, logged or put on a page goes through `display_safe`.
"""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that cannot be seen: control, format (bidirectional marks are among them),
lone surrogates, line and paragraph separators."""

_JOINERS = "\u200c\u200d"
"""Zero-width joiners: Persian words and many emoji are written with them."""


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen, or changes how its neighbours are shown."""
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def hidden_character(name: str) -> str:
    """Return the first hidden character of a name as ``U+202E``; empty if it has none."""
    return next((f"U+{ord(x):04X}" for x in name if is_hidden(x)), "")


def display_safe(text: object) -> str:
    r"""Return one line of text that is safe to print, to log and to show on a page.

    Control characters (so terminal codes too), bidirectional marks, lone surrogates and line
    ends are written as escapes, for instance ``\x1b`` or ``\u202e``, so that nothing hides.

    Parameters
    ----------
    text : object
        Anybody's text; other values are turned into text; None is empty.

    Returns
    -------
    str
        Text that encodes as UTF-8. It is not escaped for HTML.
    """
    plain = "" if text is None else str(text)
    if plain.isprintable():
        return plain
    return "".join(x.encode("unicode_escape").decode("ascii") if is_hidden(x) else x for x in plain)
