"""Tables of the user's own: csv and jsonl files with a text and a label column."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from core import DataError, DataSettings, SettingsError
from core.formatting import display_safe, split_list
from data.checks import (
    checked_dna,
    number_labels,
    refuse_dna,
    refuse_many_classes,
    sorted_labels,
)
from data.rows import Split
from data.text import check_names, clean_texts, count_note, lines_of, numbered, read_text


class Row(NamedTuple):
    """The wanted fields of a row, and the line of the file that it begins in."""

    line: int
    fields: tuple[str, ...]


def missing_column(
    where: str, column: str, present: Sequence[str], names: Sequence[str], unnamed: str = ""
) -> DataError:
    """Say that a row or header lacks a column, and `unnamed` where it has none of the wanted."""
    # Without any wanted column the "header" may be a row, which must not travel in a message.
    header = not {name.casefold() for name in names}.isdisjoint(map(str.casefold, present))
    named = ": " + display_safe(", ".join(present)) if header else f" ({len(present)} named there)"
    return DataError(
        f"{where} has no column {column!r}",
        f"one of its columns{named}",
        "set data.text_column, data.label_column or data.partition_column to one of these"
        + unnamed * (not header),
    )


def refuse_fasta(path: Path, content: str) -> None:
    """Raise `DataError` where a file begins as FASTA does."""
    if content.lstrip().startswith(">"):
        raise DataError(
            f"{path} looks like FASTA, which holds no labels",
            "a table with a column for the sequence and one for the label",
            "write sequences and labels as csv, with text,label in line 1",
        )


def read_jsonl(path: Path, content: str, names: Sequence[str]) -> Iterator[Row]:
    """Yield the wanted fields of a jsonl file's rows: text first, then names.

    Parameters
    ----------
    path : Path
        The file, for messages.
    content : str
        Its text.
    names : sequence of str
        Keys: the text's, then those of names (label, site).

    Raises
    ------
    DataError
        At the first line that is no object with these keys.
    """
    refuse_fasta(path, content)
    for number, line in enumerate(lines_of(content), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        entry = _object(line, where)
        for name in names:
            if name not in entry:
                raise missing_column(where, name, list(entry), names)
        words = (_word(entry, name, where) for name in names[1:])
        yield Row(number, (_text(entry, names[0], where), *words))


def _object(line: str, where: str) -> dict[str, object]:
    """Read one line of JSON, whose keys must differ."""
    try:
        entry = json.loads(line, object_pairs_hook=_unique)
    except _TwiceError:
        found = f"{where} has a key twice"
        raise DataError(found, "each key once", "correct the line") from None
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", None) or "nested or long beyond reason"
        fix = "correct the line"
        if line.strip() in ("[", "{", "[{"):
            fix = _ONE_A_LINE
        elif where.endswith("line 1"):
            fix += ", or set data.source = csv if this is a table with a header"
        raise DataError(f"{where}: not JSON ({why})", "one object a line", fix) from error
    if isinstance(entry, dict):
        return entry
    raise DataError(f"{where}: {_json_type(entry)}", "one object a line", _ONE_A_LINE)


_ONE_A_LINE = "write each object on a line of its own (jq -c '.[]' FILE takes a list apart)"


class _TwiceError(ValueError):
    """A JSON object has a key twice; Python would keep the last without a word."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise _TwiceError
    return entry


def _text(entry: Mapping[str, object], name: str, where: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise DataError(
            f"{where}: {name!r} is {_json_type(value)}",
            "a string",
            "put the text in quotes, or set data.text_column to the column of the text",
        )
    return value


def _word(entry: Mapping[str, object], name: str, where: str) -> str:
    value = entry[name]
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int):
        return json.dumps(value)
    raise DataError(
        f"{where}: {name!r} is {_json_type(value)}",
        "a string, a whole number, true or false",
        "correct the line",
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


DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
LONGEST_FIELD = 2**31 - 1  # csv's own limit of 131,072 characters is shorter than many texts
JSON = re.compile(r'\s*(\[\s*)*[\[{]\s*"')
"""How JSON begins: an object or a list with a string in it."""


def _header(content: str, delimiter: str) -> list[str]:
    """Return the column names with one delimiter; a mark inside, as of files put together, too."""
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    return [field.strip() for field in next(filter(None, rows), [])]


def find_delimiter(path: Path, content: str, names: Sequence[str], wanted: str) -> str:
    """Return the name of the delimiter with which the header has the wanted columns.

    Raises
    ------
    DataError
        If there is none, or it is not the one of the settings; the message says what the file
        looks like.
    """
    headers = {key: _header(content, mark) for key, mark in DELIMITERS.items()}
    fits = [key for key, header in headers.items() if set(names) <= set(header)]
    used = wanted if wanted != "auto" else (fits or ["comma"])[0]
    header = headers[used]
    for name, count in Counter(header).items():
        if name in names and count > 1:
            found = f"{path}, line 1 names the column {name!r} {count} times"
            raise DataError(found, "each column once", "rename the other columns")
    if used in fits:
        return used
    refuse_fasta(path, content)
    if JSON.match(content):
        accepted = "comma-separated values where data.source = csv"
        fix = "set data.source = jsonl, for one JSON object a line"
        raise DataError(f"{path} looks like JSON", accepted, fix)
    likely = max(headers, key=lambda key: (len(set(names) & set(headers[key])), len(headers[key])))
    absent = next((name for name in names if name not in headers[likely]), "")
    if likely == used:
        hint = ", or, if line 1 is a row, put a header above it"
        raise missing_column(str(path), absent, header, names, hint)
    if wanted == "auto":
        where = f"{path}, separated by {likely}s in line 1,"
        raise missing_column(where, absent, headers[likely], names)
    raise DataError(
        f"{path} is not separated by data.delimiter = {wanted}: line 1 has {len(header)} "
        f"fields so, and {len(headers[likely])} separated by {likely}s",
        "the delimiter of the file",
        f"set data.delimiter = {likely}, or leave it out",
    )


def read_csv(
    path: Path, content: str, names: Sequence[str], delimiter: str
) -> tuple[list[Row], list[int]]:
    """Return the rows, and the lines in which the header stands again."""
    mark = DELIMITERS[delimiter]
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=mark, strict=True)
    rows: list[Row] = []
    repeated: list[int] = []
    line = 1
    try:
        header = [name.strip() for name in next(filter(None, reader))]
        places = [header.index(name) for name in names]
        while True:
            line = reader.line_num + 1
            fields = next(reader)
            if not fields:
                continue
            if len(fields) != len(header):
                raise _wrong_count(f"{path}, line {line}", len(fields), len(header), delimiter)
            if [field.strip(" \ufeff") for field in fields] == header:
                repeated.append(line)
            else:
                rows.append(Row(line, tuple(fields[place] for place in places)))
    except StopIteration:
        return rows, repeated
    except csv.Error as error:
        open_quote = "unexpected end" in str(error)
        why = "a quote opens here and is never closed" if open_quote else str(error)
        raise DataError(
            f"{path}, line {line}: not csv ({why})",
            f"values separated by {delimiter}s, with a header",
            "correct the line; a quote inside a quoted text is written twice",
        ) from error


def _wrong_count(where: str, count: int, wanted: int, delimiter: str) -> DataError:
    return DataError(
        f"{where}: {count} fields",
        f"{wanted} fields, as in the header",
        f"correct the line; a text with {delimiter}s stands in double quotes",
    )


@dataclass(frozen=True)
class Columns:
    """The requested columns, one entry a row.

    `labels` and `groups` are kept as text; `groups` is empty where no column was requested.
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
        note = "the header again, as where files were put together: left out"
        notes += count_note(range(len(repeated)), numbered(str(path), "line", repeated), note)
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
