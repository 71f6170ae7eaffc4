"""Tables of the user's own: csv and jsonl files with a text and a label column."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core import DataError, DataSettings, SettingsError, split_list
from data.checks import (
    checked_dna,
    number_labels,
    refuse_dna,
    refuse_many_classes,
    sorted_labels,
)
from data.delimited import find_delimiter, read_csv
from data.records import read_jsonl
from data.rows import Split
from data.text import check_names, clean_texts, count_note, numbered, read_text


@dataclass(frozen=True)
class Columns:
    """The columns that were asked for, one entry a row.

    `labels` and `groups` are kept as text; `groups` is empty where no column was asked for.
    `lines` are the lines of the file that the rows begin in, and `notes` what the user should
    know of how it was read.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def read_table(
    path: Path,
    text: str,
    label: str,
    group: str = "",
    form: Literal["csv", "jsonl"] = "csv",
    delimiter: str = "auto",
) -> Columns:
    """Read the wanted columns of a csv or jsonl file.

    Parameters
    ----------
    path : Path
        The file, UTF-8, or gzip of it. A csv file has a header; each line of a jsonl file is an
        object.
    text, label, group : str
        Names of the columns; `group` may be empty.
    form : {"csv", "jsonl"}
        Format of the file.
    delimiter : str
        What separates the fields of a csv file: a name of `DELIMITERS`; ``auto``: the one with
        which the header has all wanted columns, and a note if it is no comma.

    Returns
    -------
    Columns
        Their values; names without spaces around them.

    Raises
    ------
    DataError
        If the file is missing, empty, malformed or lacks a column.
    """
    names = [text, label, *([group] if group else [])]
    content, notes = read_text(path), list[str]()
    if form == "jsonl":
        rows = list(read_jsonl(path, content, names))
    else:
        found = find_delimiter(path, content, names, delimiter)
        if found != delimiter and found != "comma":
            notes.append(f"{path}: read as separated by {found}s (data.delimiter = {found})")
        rows, repeated = read_csv(path, content, names, found)
        said = "the header again, as where files were put together: left out"
        notes += count_note(range(len(repeated)), numbered(str(path), "line", repeated), said)
    if not rows:
        raise DataError(f"{path} has no rows", "a file with rows", "check the file")
    lines, values = zip(*rows, strict=True)
    texts, *others = zip(*values, strict=True)
    labels, *groups = (tuple(value.strip() for value in column) for column in others)
    return Columns(texts, labels, groups[0] if groups else (), lines, tuple(notes))


def class_names(labels: str) -> tuple[str, ...]:
    """Split the setting `data.labels` at its commas, but those in double quotes.

    Raises
    ------
    SettingsError
        If it names one class only, a class twice, or nothing between two commas.
    """
    names = split_list(labels)
    if len(names) < 2 or len(set(names)) < len(names) or "" in names:
        raise SettingsError(
            f"data.labels = {labels!r}",
            "two or more different class names, comma-separated; in double quotes one with a comma",
            "correct data.labels",
        )
    return names


def read_split(
    settings: DataSettings, path: str, classes: tuple[str, ...] | None = None
) -> tuple[Split, tuple[str, ...], tuple[str, ...]]:
    """Read one file of the user's into a split.

    Parameters
    ----------
    settings : DataSettings
        Names of the columns, the class names and the kind.
    path : str
        The file.
    classes : tuple of str, optional
        The classes if they are known already; else `data.labels`, or the file's own, sorted.

    Returns
    -------
    (Split, tuple of str, tuple of str)
        The rows, the class names, and what the user should know of how the file was read.

    Raises
    ------
    DataError
        For anything wrong in the file.
    """
    if not path:
        raise DataError(
            f"data.source = {settings.source} without data.path",
            "the path of a file",
            "set data.path",
        )
    file = Path(path).expanduser()
    # Who holds a test row is not decided by a column.
    shared = settings.partition == "column" and path == settings.path
    form: Literal["csv", "jsonl"] = "jsonl" if settings.source == "jsonl" else "csv"
    columns = read_table(
        file,
        settings.text_column,
        settings.label_column,
        settings.partition_column if shared else "",
        form,
        settings.delimiter,
    )
    place = numbered(str(file), "line", columns.lines)
    known = class_names(settings.labels) if settings.labels else ()
    check_names(columns.labels, place, "label", known)
    check_names(columns.groups, place, "site")
    if classes is None:
        classes = known or sorted_labels(columns.labels)
        refuse_many_classes(classes, len(columns.labels), str(file))
    labels = number_labels(columns.labels, classes, place, public=bool(settings.labels))
    if settings.kind == "dna":
        texts, notes = checked_dna(columns.texts, place)
    else:
        refuse_dna(columns.texts, str(file))
        texts, notes = clean_texts(columns.texts, place)
    return Split(texts, labels, columns.groups), classes, (*columns.notes, *notes)
