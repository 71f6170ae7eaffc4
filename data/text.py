r"""One rule for the text that enters: what is refused, what is cleaned, and why.

- In texts, control characters and terminal codes become a space and halves of emoji (lone
  surrogates, as ``"\ud83d"`` in JSON) the replacement character U+FFFD, with one line that says
  where: they carry no meaning, and tokenizers fail on some. Bidirectional marks stay: Arabic and
  Hebrew are written with them, and nobody is shown a text.
- In names (classes, sites) all of these and bidirectional marks are refused: cleaning could make
  two names one, and a name that cannot be seen cannot be told from another.

Whatever is shown goes through `core.formatting.display_safe` besides.
"""

from __future__ import annotations

import json
import numbers
import re
from collections.abc import Callable, Sequence

import numpy as np

from core import DataError
from core.formatting import display_safe, hidden_character

Place = Callable[[int], str]
"""Where row i (from 0) stands, for a message: ``rows.csv, line 3``."""

LONGEST_NAME = 200
"""Characters of a class or site name; what is longer is a text from a wrong column."""

MISSING = frozenset({"nan", "NaN", "NAN", "<NA>", "null", "NULL"})
"""What programs write for a value that is not there."""

# A terminal's code whole, so that "[31m" does not stay behind; tabs and line ends are no fault.
_UNCLEAN = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|[\ud800-\udfff]"
)


def as_text(value: object, where: str, name: str) -> str:
    """Return a value that must be a text, of a row at `where`, in the column `name`.

    Raises
    ------
    DataError
        If it is of another type, which the message names; the value itself is private.
    """
    if isinstance(value, str):
        return value
    raise DataError(
        f"{where}: {name!r} is {type_name(value)}",
        "a string",
        "put the text in quotes, or set data.text_column to the column of the text",
    )


def as_label(value: object, where: str, name: str) -> str:
    """Return the text of a label or a site's name: a string, a whole number, true or false.

    Raises
    ------
    DataError
        As `as_text`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, numbers.Integral):  # bool too
        return json.dumps(value)
    raise DataError(
        f"{where}: {name!r} is {type_name(value)}",
        "a string, a whole number, true or false",
        "correct the row",
    )


def type_name(value: object) -> str:
    """Name the type of a value as JSON has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    names: dict[type, str] = {list: "a list", dict: "an object"}
    return names.get(type(value), f"of the type {type(value).__name__}")


def clean_texts(texts: Sequence[str], place: Place) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Clean texts as this module's rule says.

    Parameters
    ----------
    texts : sequence of str
        One text a row.
    place : callable
        Where a row stands.

    Returns
    -------
    (tuple of str, tuple of str)
        The texts, and one line if any was changed.

    Raises
    ------
    DataError
        If a row has no text.
    """
    changed = [row for row, text in enumerate(texts) if _UNCLEAN.search(text)]
    cleaned = list(texts)
    for row in changed:
        cleaned[row] = _UNCLEAN.sub(
            lambda found: "\ufffd" if found[0] >= "\ud800" else " ", texts[row]
        )
    refuse_blank(cleaned, place)
    note = "control characters or halves of emoji in a text, now spaces or U+FFFD"
    return tuple(cleaned), tuple(count_note(changed, place, note))


def count_note(rows: Sequence[int], place: Place, note: str) -> list[str]:
    """Say what was found in some rows: one line that names the first; none if there are none."""
    if not rows:
        return []
    others = f" (and in {len(rows) - 1:,} other rows)" if len(rows) > 1 else ""
    return [f"{place(rows[0])}: {note}{others}"]


def refuse_blank(texts: Sequence[str], place: Place) -> None:
    """Raise `DataError` at the first row without text."""
    for row, text in enumerate(texts):
        if not text or text.isspace():
            raise DataError(f"{place(row)}: no text", "a text in every row", "remove the row")


def check_names(values: Sequence[str], place: Place, what: str, known: Sequence[str] = ()) -> None:
    """Refuse names of classes or sites that are missing, too long or cannot be seen.

    Parameters
    ----------
    values : sequence of str
        One name a row.
    place : callable
        Where a row stands.
    what : str
        What they name, for the message: ``label``.
    known : sequence of str
        Names that are right whatever they look like.

    Raises
    ------
    DataError
        At the first such name, which the message does not hold.
    """
    for value in dict.fromkeys(values):
        if value not in known and (wrong := _wrong_name(value, what)):
            found = f"{place(list(values).index(value))}: {wrong}"
            raise DataError(
                found,
                f"a {what} of 1 to {LONGEST_NAME} visible characters in every row",
                f"correct or remove the row, or check the column of the {what}",
            )


def _wrong_name(value: str, what: str) -> str:
    """Say what is wrong with a name; empty if nothing is."""
    if not value:
        return f"no {what}"
    if value in MISSING:
        return f"{display_safe(value)} in the place of a {what}: a missing value"
    if len(value) > LONGEST_NAME:
        return f"a {what} of {len(value):,} characters"
    hidden = hidden_character(value)
    return f"a {what} with the hidden character {hidden}" if hidden else ""
