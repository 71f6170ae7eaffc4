"""What a page is made of: sections, their tables and cells; text, which the page escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Noted:
    """A cell with a small note below its text."""

    text: str
    note: str

    def __str__(self) -> str:
        return self.text


Cell = str | Noted


@dataclass(frozen=True)
class Table:
    """A table: head, rows, and which columns hold figures (they are set right).

    Parameters
    ----------
    head, rows, figures
        As above.
    folded : str
        What to click to see it; empty: it is open.
    title, note : str
        A heading of its own, and how to read it.
    tall : bool
        Whether it scrolls in a window of its own.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figures: frozenset[int] = frozenset()
    folded: str = ""
    title: str = ""
    note: str = ""
    tall: bool = False


@dataclass(frozen=True)
class Asking:
    """One question to a language model: facts, what was wrong, prompt and raw answer."""

    facts: str
    problem: str
    notes: Sequence[str]
    prompt: str
    answer: str


@dataclass(frozen=True)
class Asked:
    """The questions of a round, folded below one line."""

    head: str
    questions: Sequence[Asking]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    anchor, title, note : str
        Link target, heading, one or two sentences on how to read it.
    pictures : sequence of str
        Inline SVG, or an ``<img>``: our own markup, not escaped.
    tables : sequence of Table
        Text, escaped by the page.
    empty : str
        Why there is nothing to show; shown only if there is nothing.
    legend : str
        ``all`` for the global model and the clients, ``clients``, or empty.
    warnings : sequence of str
        What went wrong; shown in any case.
    asked : sequence of Asked
        What a language model was asked and said; escaped too.
    """

    anchor: str
    title: str
    note: str
    pictures: Sequence[str] = ()
    tables: Sequence[Table] = ()
    empty: str = ""
    legend: str = ""
    warnings: Sequence[str] = ()
    asked: Sequence[Asked] = ()

    @property
    def shown(self) -> bool:
        """Whether there is anything to show."""
        return any(self.pictures) or any(table.rows for table in self.tables)
