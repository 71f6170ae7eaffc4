"""JSON: an object a line, or one array of objects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from core import DataError
from data.dataset import Columns
from data.readers.columns import Found, Wanted, find_columns, missing_column
from data.readers.content import lines_of, read_text
from data.readers.delimited import Row, columns_of, refuse_fasta
from data.text import as_label, as_text, type_name

_ONE_A_LINE = "write each object on a line of its own, or set data.source = json for an array"


def read_lines(path: Path, wanted: Wanted, encoding: str = "auto") -> Columns:
    """Read the wanted columns of a file with a JSON object a line; empty lines are skipped.

    Parameters and errors as `data.readers.delimited.read_delimited`.
    """
    content, notes = read_text(path, encoding)
    refuse_fasta(path, content)
    entries = (
        (number, _object(line, f"{path}, line {number}"))
        for number, line in enumerate(lines_of(content), start=1)
        if line.strip()
    )
    found, rows = Found(()), list[Row]()
    for number, entry in entries:
        if not rows:
            found = find_columns(f"{path}, line {number}", list(entry), wanted)
        rows.append((number, _fields(entry, found, f"{path}, line {number}")))
    return columns_of(path, rows, (*notes, *found.notes))


def read_array(path: Path, wanted: Wanted, encoding: str = "auto") -> Columns:
    """Read the wanted columns of a file with one JSON array of objects; as `read_lines`."""
    content, notes = read_text(path, encoding)
    value = _parsed(content, str(path), "an array of objects", "correct the file")
    if not isinstance(value, list):
        fix = "set data.source = jsonl for an object a line"
        raise DataError(f"{path}: {type_name(value)}", "an array of objects", fix)
    found, rows = Found(()), list[Row]()
    for number, entry in enumerate(value, start=1):
        where = f"{path}, row {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: {type_name(entry)}", "an object", "correct the row")
        if not rows:
            found = find_columns(where, list(entry), wanted)
        rows.append((number, _fields(entry, found, where)))
    return replace(columns_of(path, rows, (*notes, *found.notes)), lines=())


def _fields(entry: dict[str, object], found: Found, where: str) -> tuple[str, ...]:
    for name in found.names:
        if name not in entry:
            raise missing_column(
                where, name, list(entry), [key for key in found.names if key in entry]
            )
    text, *others = found.names
    return (as_text(entry[text], where, text), *(as_label(entry[n], where, n) for n in others))


def _object(line: str, where: str) -> dict[str, object]:
    """Read one line of JSON."""
    fix = "correct the line"
    if line.strip() in ("[", "{", "[{"):
        fix = _ONE_A_LINE
    elif where.endswith("line 1"):
        fix += ", or set data.source = csv if this is a table with a header"
    entry = _parsed(line, where, "one object a line", fix)
    if isinstance(entry, dict):
        return entry
    raise DataError(f"{where}: {type_name(entry)}", "one object a line", _ONE_A_LINE)


def _parsed(text: str, where: str, accepted: str, fix: str) -> object:
    """Parse JSON, in whose objects each key stands once."""
    try:
        value: object = json.loads(text, object_pairs_hook=_unique)
    except _TwiceError:
        raise DataError(f"{where} has a key twice", "each key once", "correct it") from None
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", None) or "nested or long beyond reason"
        raise DataError(f"{where}: not JSON ({why})", accepted, fix) from error
    return value


class _TwiceError(ValueError):
    """A JSON object has a key twice; Python would keep the last without a word."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise _TwiceError
    return entry
