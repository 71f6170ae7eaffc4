"""Which columns of a table hold the text, the label and the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core import DataError, DataSettings
from core.formatting import display_safe

TEXT, LABEL = "text", "label"
"""The defaults of the settings: these names are taken before any other."""

TEXTS = (
    TEXT, "texts", "sentence", "review", "tweet", "content", "document", "body", "comment",
    "question", "message", "utterance", "sequence", "seq", "dna",
)  # fmt: skip
LABELS = (
    LABEL, "labels", "class", "target", "category", "sentiment", "stars", "rating", "intent",
    "species", "diagnosis",
)  # fmt: skip
"""Usual names of columns, in any case of letters."""


@dataclass(frozen=True)
class Wanted:
    """The columns that settings name; `site` is empty where no column says who holds a row."""

    text: str = TEXT
    label: str = LABEL
    site: str = ""


def wanted_columns(settings: DataSettings, test: bool = False) -> Wanted:
    """Return the columns that settings name; who holds a test row is not decided by a column."""
    by_column = settings.partition == "column" and not test
    site = settings.partition_column if by_column else ""
    return Wanted(settings.text_column, settings.label_column, site)


@dataclass(frozen=True)
class Found:
    """The columns to read, and what was found otherwise than by its name in the settings."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_columns(
    where: str, present: Sequence[str], wanted: Wanted, coded: Mapping[str, object] | None = None
) -> Found:
    """Find the columns of text, label and site by the names of a header.

    Parameters
    ----------
    where : str
        The file, for messages.
    present : sequence of str
        The names in the header.
    wanted : Wanted
        What the settings name; ``text`` and ``label``, their defaults, may have other usual names,
        or be the other one of two columns.
    coded : mapping, optional
        Columns that the file itself declares as classes.

    Raises
    ------
    DataError
        If a column is missing, or several could be it: one line that names them.
    """
    text = wanted.text if wanted.text in present else ""
    label = wanted.label if wanted.label in present else ""
    if not text and wanted.text == TEXT:
        text = _usual(where, "text", present, TEXTS, label)
    if not label and wanted.label == LABEL:
        classes = [name for name in coded or () if name != text]
        label = classes[0] if len(classes) == 1 else ""
        label = label or _usual(where, "label", present, LABELS, text)
    if len(present) == 2 and bool(text) != bool(label):
        other = next(name for name in present if name != (text or label))
        text = text or (other if wanted.text == TEXT else "")
        label = label or (other if wanted.label == LABEL else "")
    site = wanted.site if wanted.site in present else ""
    for name, found in ((wanted.text, text), (wanted.label, label), (wanted.site, site)):
        if name and not found:
            raise missing_column(where, name, present, (text, label, site))
    notes = [
        f"{where}: the {what} is the column {display_safe(name)} (data.{what}_column)"
        for what, name in (("text", text), ("label", label))
        if name != getattr(wanted, what)
    ]
    return Found((text, label, *([site] if site else [])), tuple(notes))


def _usual(where: str, what: str, present: Sequence[str], usual: Sequence[str], other: str) -> str:
    """Return the one column with a usual name; empty if there is none."""
    fits = [name for name in present if name.casefold() in usual and name != other]
    if len(set(fits)) > 1:
        raise DataError(
            f"{where}: the {what} may be any of the columns {display_safe(', '.join(fits))}",
            f"one {what} column",
            f"set data.{what}_column to one of them",
        )
    return fits[0] if fits else ""


def missing_column(
    where: str, column: str, present: Sequence[str], known: Sequence[str]
) -> DataError:
    """Say that a row or header lacks a column.

    `known` are columns that were found in it: without any the "header" may be a row, which must
    not travel in a message.
    """
    header = any(known) or not {*TEXTS, *LABELS}.isdisjoint(map(str.casefold, present))
    named = ": " + display_safe(", ".join(present)) if header else f" ({len(present)} named there)"
    return DataError(
        f"{where} has no column {column!r}",
        f"one of its columns{named}",
        "set data.text_column, data.label_column or data.partition_column to one of these"
        + ", or, if line 1 is a row, put a header above it" * (not header),
    )
