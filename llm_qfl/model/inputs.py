"""Rows to predict, read from a file: every column is kept, and a bad row spoils no other."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import DataError, short_message
from core.formatting import display_safe
from data.readers.columns import TEXTS
from data.readers.content import lines_of, read_bytes, read_text
from data.readers.delimited import DELIMITERS, LONGEST_FIELD
from data.readers.sequences import ENDINGS, read_records

STREAM = "-"
FORMATS = {
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "txt": (".txt",),
    **ENDINGS,
}
"""Formats, and how the names of their files end; behind that ``.gz`` may stand."""

LINES = "text"
"""Column of a file without columns: a row a line."""


@dataclass
class Input:
    """A file's rows.

    Attributes
    ----------
    columns : list of str
        Names of the columns, in order.
    rows : list of dict
        Each row's values by column; what a row lacks is not in it.
    text : str
        The column that the model reads.
    problems : dict
        What is wrong with rows that could not be read, by place from 0.
    notes : list of str
        What the user should know of how the file was read.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    text: str = LINES
    problems: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_format(path: str, wanted: str = "") -> str:
    """Return a file's format: the one that is named, or that of its name's ending.

    Raises
    ------
    DataError
        If neither says it.
    """
    plain = path.removesuffix(".gz")
    for name, endings in FORMATS.items():
        if wanted == name or (not wanted and plain.endswith(endings)):
            return name
    if path == STREAM and not wanted:
        return "csv"
    given = f"--format {wanted}" if wanted else f"{path}, whose name says no format"
    raise DataError(given, ", ".join(FORMATS), "name one with --format")


def read_input(path: str, form: str, text_column: str, trained_on: str) -> Input:
    """Read the rows of a file, or of the standard input (``-``).

    Parameters
    ----------
    path : str
        The file.
    form : str
        A name of `FORMATS`.
    text_column : str
        The column that the model reads; empty: that of the training, or one with a usual name.
    trained_on : str
        The column of the training.

    Raises
    ------
    DataError
        If the file cannot be read, has no row, or no such column.
    """
    file = Path(path).expanduser()
    if form in ("parquet", "arrow"):
        found = _table(_bytes(file, path), path, form)
    elif form in ENDINGS:
        found = _sequences(file, path, form)
    else:
        content, notes = _text(file, path)
        read = {"jsonl": _objects, "txt": _lines}.get(form)
        names = [text_column] if text_column else [trained_on, *TEXTS]
        found = read(content) if read else _delimited(content, path, form, names)
        found.notes += notes
    if not found.rows:
        raise DataError(f"{path} has no rows", "a file with rows", "check the file")
    if form != "txt" and form not in ENDINGS:
        found.text = _text_column(path, found, text_column, trained_on)
    return found


def _text(file: Path, path: str) -> tuple[str, tuple[str, ...]]:
    if path != STREAM:
        return read_text(file, "auto")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        given = f"standard input: byte at position {error.start} is not UTF-8"
        raise DataError(given, "UTF-8 text", "convert it, for instance with iconv") from None


def _bytes(file: Path, path: str) -> bytes:
    return sys.stdin.buffer.read() if path == STREAM else read_bytes(file)


def _text_column(path: str, found: Input, wanted: str, trained_on: str) -> str:
    """Choose the column that the model reads, and say so where nobody named it."""
    if wanted in found.columns or (not wanted and trained_on in found.columns):
        return wanted or trained_on
    usual = [name for name in found.columns if name.casefold() in TEXTS]
    likely = usual if len(usual) == 1 else found.columns
    if wanted or len(likely) != 1:
        raise DataError(
            f"{path} has no column {wanted or trained_on!r}",
            f"one of its columns: {display_safe(', '.join(found.columns))[:300]}",
            "name the column with --text-column",
        )
    found.notes.append(f"{path}: the text is the column {display_safe(likely[0])} (--text-column)")
    return likely[0]


def _delimited(content: str, path: str, form: str, names: Sequence[str]) -> Input:
    """Read a table with a header; a row with another number of fields is a problem of its own."""
    csv.field_size_limit(LONGEST_FIELD)
    marks = ["\t"] if form == "tsv" else list(DELIMITERS.values())
    headers = {mark: _header(content, mark) for mark in marks}
    # The first with a wanted column, else the one that separates most.
    fits = [mark for mark in marks if set(names) & set(headers[mark])]
    mark = fits[0] if fits else max(marks, key=lambda each: len(headers[each]))
    header = headers[mark]
    if len(set(header)) < len(header):
        given = f"{path}, line 1 names a column twice"
        raise DataError(given, "each column once", "rename one of them")
    found = Input(header, [])
    if form == "csv" and mark != ",":
        name = next(key for key, value in DELIMITERS.items() if value == mark)
        found.notes.append(f"{path}: read as separated by {name}s")
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=mark, strict=True)
    try:
        for number, fields in enumerate(filter(None, reader)):
            if number and len(fields) != len(header):
                problem = f"{len(fields)} fields, and {len(header)} in the header"
                found.problems[number - 1] = problem
            if number:
                found.rows.append(dict(zip(header, fields, strict=False)))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not {form} ({error})",
            "fields with quotes that are closed",
            "correct the line; a quote inside a quoted text is written twice",
        ) from None
    return found


def _header(content: str, mark: str) -> list[str]:
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=mark)
    return [name.strip(" \ufeff") for name in next(filter(None, rows), [])]


def _objects(content: str) -> Input:
    """Read an object a line; a line that is none is a problem of its own."""
    found, columns = Input([], []), dict[str, None]()
    for line in lines_of(content):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            found.problems[len(found.rows)] = "no JSON object"
            value = {}
        found.rows.append(value)
        columns.update(dict.fromkeys(value))
    found.columns = list(columns)
    return found


def _lines(content: str) -> Input:
    return Input([LINES], [{LINES: line} for line in lines_of(content)])


def _sequences(file: Path, path: str, form: str) -> Input:
    """Read FASTA or FASTQ: the header of a sequence is a column."""
    if path == STREAM:
        given = f"--format {form} from the standard input"
        raise DataError(given, "csv, tsv, jsonl, txt, parquet or arrow", "write it into a file")
    records, notes = read_records(file, form)
    rows = [{"header": header, "sequence": sequence} for _, header, sequence in records]
    return Input(["header", "sequence"], rows, "sequence", notes=list(notes))


def _table(content: bytes, path: str, form: str) -> Input:
    """Read a Parquet or Arrow file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.BufferReader(content)
    try:
        if form == "parquet":
            table = pq.ParquetFile(raw).read()
        elif content.startswith(b"ARROW1"):
            table = pa.ipc.open_file(raw).read_all()
        else:
            table = pa.ipc.open_stream(raw).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        given = f"{path} is no {form} file, or damaged ({short_message(error)})"
        raise DataError(given, form, "check the file, or name its --format") from None
    return Input(list(table.column_names), table.to_pylist())


def texts_of(found: Input) -> Iterator[str]:
    """Yield each row's text; empty, and a problem, where there is none."""
    for place, row in enumerate(found.rows):
        value = row.get(found.text)
        if place not in found.problems and not (isinstance(value, str) and value.strip()):
            kind = (
                "" if value is None or isinstance(value, str) else ", but a value of another type"
            )
            found.problems[place] = f"no text in {display_safe(found.text)!r}{kind}"
        yield value if isinstance(value, str) else ""
