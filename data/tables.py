"""Tables of the user's own: csv and jsonl files with a text and a label column."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.checks import (
    checked_dna,
    lines_of,
    number_labels,
    read_text,
    refuse_blank,
    sorted_labels,
)
from data.rows import Split
from federation import DataError, DataSettings, SettingsError, explain, split_list


@dataclass(frozen=True)
class Columns:
    """The columns that were asked for, one entry a row.

    `labels` and `groups` are kept as text; `groups` is empty where no column was asked for.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...] = ()


def read_table(
    path: Path, text: str, label: str, group: str = "", form: Literal["csv", "jsonl"] = "csv"
) -> Columns:
    """Read the wanted columns of a csv or jsonl file.

    Parameters
    ----------
    path : Path
        The file, UTF-8. A csv file has a header; each line of a jsonl file is an object.
    text, label, group : str
        Names of the columns; `group` may be empty.
    form : {"csv", "jsonl"}
        Format of the file.

    Returns
    -------
    Columns
        Their values.

    Raises
    ------
    DataError
        If the file is missing, empty, malformed or lacks a column.
    """
    names = [text, label, *([group] if group else [])]
    rows = (_read_jsonl if form == "jsonl" else _read_csv)(path, names)
    if not rows:
        raise DataError(explain(f"{path} has no rows", "a file with rows", "check the file"))
    texts, labels, *groups = (tuple(column) for column in zip(*rows, strict=True))
    return Columns(texts, labels, groups[0] if groups else ())


def _missing(path: Path, column: str, present: Sequence[str], wanted: Sequence[str]) -> DataError:
    # Without any wanted column the "header" may be a row, which must not travel in a message.
    header = any(name in present for name in wanted)
    names = ": " + ", ".join(present) if header else f" ({len(present)} named in line 1)"
    return DataError(
        explain(
            f"{path} has no column {column!r}",
            f"one of its columns{names}",
            "set data.text_column, data.label_column or data.partition_column to one of these"
            + ("" if header else ", or put a header into line 1"),
        )
    )


def _read_csv(path: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        for name in names:
            if header.count(name) != 1:
                raise _missing(path, name, header, names)
        places = [header.index(name) for name in names]
        rows: list[tuple[str, ...]] = []
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    explain(
                        f"{path}, line {reader.line_num}: {len(fields)} fields",
                        f"{len(header)} fields, as in the header",
                        "correct the line; a text with commas stands in double quotes",
                    )
                )
            rows.append(tuple(fields[place] for place in places))
    except csv.Error as error:
        raise DataError(
            explain(
                f"{path}, line {reader.line_num}: not csv ({error})",
                "comma-separated values with a header",
                "correct the line",
            )
        ) from error
    return [(row[0], *(value.strip() for value in row[1:])) for row in rows]


def _read_jsonl(path: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, line in enumerate(lines_of(read_text(path)), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                explain(f"{where}: not JSON ({error.msg})", "one object a line", "correct the line")
            ) from error
        if not isinstance(entry, dict):
            raise DataError(
                explain(f"{where}: {_json_type(entry)}", "one object a line", "correct it")
            )
        for name in names:
            if name not in entry:
                raise _missing(path, name, list(entry), names)
        rows.append((_text(entry, names[0], where), *(_word(entry, n, where) for n in names[1:])))
    return rows


def _text(entry: Mapping[str, object], name: str, where: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise DataError(
            explain(
                f"{where}: {name!r} is {_json_type(value)}",
                "a string",
                "put the text in quotes, or set data.text_column to the column of the text",
            )
        )
    return value


def _word(entry: Mapping[str, object], name: str, where: str) -> str:
    value = entry[name]
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int):
        return json.dumps(value)
    raise DataError(
        explain(
            f"{where}: {name!r} is {_json_type(value)}",
            "a string, a whole number, true or false",
            "correct the line",
        )
    )


def _json_type(value: object) -> str:
    """Name the type of a JSON value; the value itself is private and stays out of messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


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
            explain(
                f"data.labels = {labels!r}",
                "two or more different class names, comma-separated; in double quotes one with "
                "a comma",
                "correct data.labels",
            )
        )
    return names


def read_split(
    settings: DataSettings, path: str, classes: tuple[str, ...] | None = None
) -> tuple[Split, tuple[str, ...]]:
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
    (Split, tuple of str)
        The rows and the class names.

    Raises
    ------
    DataError
        For anything wrong in the file.
    """
    if not path:
        raise DataError(
            explain(
                f"data.source = {settings.source} without data.path",
                "the path of a file",
                "set data.path",
            )
        )
    file = Path(path).expanduser()
    group = settings.partition_column if settings.partition == "column" else ""
    form: Literal["csv", "jsonl"] = "jsonl" if settings.source == "jsonl" else "csv"
    columns = read_table(file, settings.text_column, settings.label_column, group, form)
    if classes is None:
        classes = class_names(settings.labels) if settings.labels else sorted_labels(columns.labels)
    labels = number_labels(columns.labels, classes, str(file), public=bool(settings.labels))
    if settings.kind == "dna":
        texts = checked_dna(columns.texts, str(file))
    else:
        refuse_blank(columns.texts, str(file))
        texts = columns.texts
    return Split(texts, labels, columns.groups), classes
