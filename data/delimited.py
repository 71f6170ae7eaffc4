"""Rows of csv files, whatever separates their fields."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core import DataError
from data.records import Row, missing_column, refuse_fasta

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
