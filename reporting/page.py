"""What a page is made of, and how it becomes HTML: sections with tables, charts and questions.

Text is escaped by the page. The style and the template are in ``page.toml``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from core.formatting import display_safe

Columns = Sequence[tuple[str, str, Callable[[Any], Any]]]
"""Columns of a table of records: key, heading, and the function that writes a value."""


@dataclass(frozen=True)
class CellWithNote:
    """A cell with a small note below its text."""

    text: str
    note: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """A table of text.

    Parameters
    ----------
    head, rows : sequence
        Column headings, and cells row by row.
    numeric : collection of int, optional
        Columns of figures, set right; None: all but the first.
    folded : str
        What to click to see it; empty: it is open.
    title, note : str
        A heading of its own, and how to read it.
    tall : bool
        Whether it scrolls in a window of its own.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | CellWithNote]]
    numeric: Collection[int] | None = None
    folded: str = ""
    title: str = ""
    note: str = ""
    tall: bool = False

    @property
    def figures(self) -> Collection[int]:
        """Columns that are set right."""
        return range(1, len(self.head)) if self.numeric is None else self.numeric


FIRST_ROWS, FOUND_ROWS = 20, 100
"""Rows of a searched table that stand in the page itself, and that a search shows at most."""


@dataclass(frozen=True)
class SearchTable:
    """A table of more rows than a page shows: the first of them, and a box that searches all.

    Without scripts the first `FIRST_ROWS` rows are there, and a note.

    Parameters
    ----------
    head, rows, figures, title
        As of a `Table`.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | CellWithNote]]
    figures: Collection[int]
    title: str

    @property
    def first(self) -> Sequence[Sequence[str | CellWithNote]]:
        """The rows that are in the page as HTML."""
        return self.rows[:FIRST_ROWS]

    @property
    def data(self) -> str:
        """All rows as JSON that cannot end the script element that holds it."""
        rows = [[display_safe(cell) for cell in row] for row in self.rows]
        found = {"rows": rows, "figures": sorted(self.figures), "most": FOUND_ROWS}
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        for letter in "<>&\u2028\u2029":
            text = text.replace(letter, f"\\u{ord(letter):04x}")
        return text


def table_of(columns: Columns, records: Iterable[Mapping[str, Any]], **more: Any) -> Table:
    """Make a table with a row a record; `more` are further fields of the `Table`."""
    rows = [[write(record.get(key)) for key, _, write in columns] for record in records]
    return Table([name for _, name, _ in columns], rows, **more)


@dataclass(frozen=True)
class Question:
    """One question to a language model: figures, what was wrong, prompt and raw answer."""

    facts: str
    problem: str
    notes: Sequence[str]
    prompt: str
    answer: str


@dataclass(frozen=True)
class RoundQuestions:
    """The questions of a round, folded below one line."""

    head: str
    questions: Sequence[Question]


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
        Those without rows are left out.
    empty : str
        Why there is nothing to show; shown only if there is nothing.
    legend : str
        ``all`` for the global model and the clients, ``clients``, or empty.
    warnings : sequence of str
        What went wrong; shown in any case.
    questions : sequence of RoundQuestions
        Questions to a language model, round by round.
    search : SearchTable or None
        A table of all clients, where they are many.
    """

    anchor: str
    title: str
    note: str
    pictures: Sequence[str] = ()
    tables: Sequence[Table] = ()
    empty: str = ""
    legend: str = ""
    warnings: Sequence[str] = ()
    questions: Sequence[RoundQuestions] = ()
    search: SearchTable | None = None

    @property
    def shown(self) -> bool:
        """Whether there is anything to show."""
        return any(self.pictures) or any(t.rows for t in self.tables) or self.search is not None


@cache
def source() -> dict[str, Any]:
    """Read style, template and texts of the sections."""
    return tomllib.loads(files("reporting").joinpath("page.toml").read_text("utf-8"))


def section(
    page: str, anchor: str, values: Mapping[str, str] | None = None, **parts: Any
) -> Section:
    """Make a section whose texts are in ``page.toml``.

    Parameters
    ----------
    page, anchor : str
        ``run`` or ``comparison``, and the section.
    values : Mapping, optional
        What stands in braces in its texts.
    **parts
        Further fields of the `Section`.
    """
    texts = source()[page][anchor]
    note, empty = (texts.get(key, "").format(**(values or {})) for key in ("note", "empty"))
    return Section(anchor, texts["title"], note.strip(), empty=empty, **parts)


@dataclass(frozen=True)
class Page:
    """A page: its head, its sections, and the command that makes it.

    Parameters
    ----------
    title, folder, status, outcome : str
        The head; `status` and `outcome` may be empty.
    sections : sequence of Section
        The parts, in order.
    legend : sequence of (CSS of its line, name)
        The clients, or runs.
    facts : sequence of (name, value)
        What ran.
    kind, maker : str
        ``run`` or ``comparison``, and the command that makes the page.
    """

    title: str
    folder: str
    sections: Sequence[Section]
    legend: Sequence[tuple[str, str]]
    status: str = ""
    outcome: str = ""
    facts: Sequence[tuple[str, str]] = ()
    kind: str = "run"
    maker: str = "llm-qfl report"

    def html(self) -> str:
        """Fill the template; all text is escaped, only our own pictures are not."""
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup

        environment = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_visible,
        )
        template = environment.from_string(source()["template"])
        ours = {
            "css": Markup(source()["style"]),
            "search_script": Markup(source()["search_script"]),
        }
        return template.render(**ours, **vars(self))


def _visible(value: Any) -> Any:
    """Show hidden characters of any text as escapes; our own markup stays."""
    if hasattr(value, "__html__"):
        return value
    return "\n".join(map(display_safe, str(value).split("\n")))
