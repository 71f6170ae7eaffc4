"""Rows as JSON objects, one a line, and what every reader of rows shares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core import DataError, display_safe
from data.text import lines_of


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
