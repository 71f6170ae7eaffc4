"""Tables with a header, fields separated by commas, semicolons, tabs or pipes."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core import DataError
from core.formatting import join_list
from data.dataset import Columns
from data.readers.columns import Found, Wanted, find_columns
from data.readers.content import read_text
from data.text import count_note

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
LONGEST_FIELD = 2**31 - 1  # csv's own limit of 131,072 characters is shorter than many texts
Row = tuple[int, tuple[str, ...]]
"""The line that a row begins in, and its wanted fields."""
JSON = re.compile(r'\s*(\[\s*)*[\[{]\s*"')
"""How JSON begins: an object or a list with a string in it."""


def read_delimited(
    path: Path, wanted: Wanted, delimiter: str = "auto", encoding: str = "auto"
) -> Columns:
    """Read the wanted columns of a table.

    Parameters
    ----------
    path : Path
        The file, or gzip of it, with a header in its first line that is not empty.
    wanted : Wanted
        The columns.
    delimiter : str
        A name of `DELIMITERS`; ``auto``: the one with which the header has all wanted columns, and
        a note if it is no comma.
    encoding : str
        As `data.readers.content.read_text`.

    Raises
    ------
    DataError
        If the file is missing, empty, malformed or lacks a column.
    """
    content, notes = read_text(path, encoding)
    mark, found = _find_delimiter(path, content, wanted, delimiter)
    if mark not in (delimiter, "comma"):
        notes += (f"{path}: read as separated by {mark}s (data.delimiter = {mark})",)
    rows, repeated = _rows(path, content, found.names, mark)
    note = "the header again, as where files were put together: left out"
    again = count_note(repeated, lambda k: f"{path}, line {k}", note)
    return columns_of(path, rows, (*notes, *found.notes, *again))


def columns_of(path: Path, rows: Sequence[Row], notes: tuple[str, ...]) -> Columns:
    """Turn rows, each with its line, into columns: text, label and perhaps site."""
    if not rows:
        raise DataError(f"{path} has no rows", "a file with rows", "check the file")
    lines, values = zip(*rows, strict=True)
    texts, *others = zip(*values, strict=True)
    labels, *sites = (tuple(value.strip() for value in column) for column in others)
    return Columns(texts, labels, sites[0] if sites else (), str(path), lines, notes=notes)


def refuse_fasta(path: Path, content: str) -> None:
    """Raise `DataError` where a file begins as FASTA does."""
    if content.lstrip().startswith(">"):
        given = f"{path} looks like FASTA"
        raise DataError(given, "a table with a header", "set data.source = fasta")


def _header(content: str, delimiter: str) -> list[str]:
    """Return the column names with one delimiter; a mark inside, as of files put together, too."""
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    return [field.strip() for field in next(filter(None, rows), [])]


def _find_delimiter(path: Path, content: str, wanted: Wanted, given: str) -> tuple[str, Found]:
    """Return the name of the delimiter with which the header has the wanted columns, and these."""
    headers = {key: _header(content, mark) for key, mark in DELIMITERS.items()}
    exact = {wanted.text, wanted.label, wanted.site} - {""}
    named = [key for key, header in headers.items() if exact <= set(header)]
    usual = {key: found for key in headers if (found := _fits(path, headers[key], wanted))}
    fits = named or list(usual)
    if given == "auto" and len(fits) > 1:
        raise DataError(
            f"{path}, line 1 has the columns separated by {'s or '.join(fits)}s",
            "one delimiter",
            f"set data.delimiter to one of {join_list(fits)}",
        )
    used = given if given != "auto" else (fits or ["comma"])[0]
    if used not in fits:
        refuse_fasta(path, content)
        _refuse_delimiter(path, content, wanted, given, headers)
    found = find_columns(str(path), headers[used], wanted)
    for name, count in Counter(headers[used]).items():
        if name in found.names and count > 1:
            twice = f"{path}, line 1 names the column {name!r} {count} times"
            raise DataError(twice, "each column once", "rename the other columns")
    return used, found


def _fits(path: Path, header: Sequence[str], wanted: Wanted) -> Found | None:
    try:
        return find_columns(str(path), header, wanted)
    except DataError:
        return None


def _refuse_delimiter(
    path: Path, content: str, wanted: Wanted, given: str, headers: dict[str, list[str]]
) -> None:
    """Say what a file looks like whose header lacks the columns."""
    if JSON.match(content):
        accepted = "a table with a header in line 1"
        fix = "set data.source = jsonl for one JSON object a line, or json for one array of them"
        raise DataError(f"{path} looks like JSON", accepted, fix)
    exact = {wanted.text, wanted.label, wanted.site}
    likely = max(headers, key=lambda key: (len(exact & set(headers[key])), len(headers[key])))
    if given not in ("auto", likely):
        raise DataError(
            f"{path} is not separated by data.delimiter = {given}: line 1 has "
            f"{len(headers[given])} fields so, and {len(headers[likely])} separated by {likely}s",
            "the delimiter of the file",
            f"set data.delimiter = {likely}, or leave it out",
        )
    by = f", separated by {likely}s in line 1," if (given, likely) != ("auto", "comma") else ""
    find_columns(f"{path}{by}", headers[likely], wanted)


def _rows(
    path: Path, content: str, names: Sequence[str], delimiter: str
) -> tuple[list[Row], list[int]]:
    """Return the rows, each with its line, and the lines in which the header stands again."""
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
                rows.append((line, tuple(fields[place] for place in places)))
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
