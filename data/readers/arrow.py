"""Parquet and Arrow files, and what the tables of `datasets` have in common with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import DataError, short_message
from data.dataset import Columns
from data.readers.columns import Found, Wanted, find_columns
from data.readers.content import read_bytes
from data.text import as_label, as_text


def read_parquet(path: Path, wanted: Wanted) -> Columns:
    """Read the wanted columns of a Parquet file, or of gzip of it.

    Class names that `datasets` has written into it are the labels of numbered classes.

    Raises
    ------
    DataError
        If the file is missing, damaged, of another kind, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.BufferReader(read_bytes(path))
    return _read(path, "Parquet", lambda: pq.ParquetFile(raw).read(), wanted)


def read_arrow(path: Path, wanted: Wanted) -> Columns:
    """Read the wanted columns of an Arrow IPC file or stream; as `read_parquet`."""
    import pyarrow as pa

    content = read_bytes(path)
    whole = content.startswith(b"ARROW1")
    load = pa.ipc.open_file if whole else pa.ipc.open_stream
    return _read(path, "Arrow", lambda: load(pa.BufferReader(content)).read_all(), wanted)


def _read(path: Path, kind: str, load: Callable[[], Any], wanted: Wanted) -> Columns:
    import pyarrow as pa

    try:
        table = load()
    except (pa.ArrowException, OSError, ValueError) as error:
        given = f"{path} is no {kind} file, or damaged ({short_message(error)})"
        raise DataError(
            given, f"{kind}, or gzip of it", "check the file and data.source"
        ) from error
    coded = _class_names(table.schema.metadata or {})
    found = find_columns(str(path), table.column_names, wanted, coded)
    values = {name: table.column(name).to_pylist() for name in found.names}
    return table_columns(str(path), found, values, coded)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the class names that `datasets` writes beside a table, by column; else none."""
    try:
        written = json.loads(metadata.get(b"huggingface", b"{}"))
        features = dict(written.get("info", {}).get("features", {}))
    except (ValueError, TypeError, AttributeError):  # another program's
        return {}
    kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    return {name: k["names"] for name, k in kinds.items() if isinstance(k.get("names"), list)}


def table_columns(
    where: str,
    found: Found,
    values: Mapping[str, Sequence[Any]],
    coded: Mapping[str, Sequence[str]],
) -> Columns:
    """Turn the values of typed columns into text.

    Parameters
    ----------
    where : str
        The file or data set, for messages.
    found : Found
        The columns of text, label and perhaps site.
    values : mapping
        Their values by name.
    coded : mapping
        Class names by column, where a column holds numbers of classes.

    Raises
    ------
    DataError
        If there are no rows, or a value is missing or of another type.
    """
    text, *others = found.names
    if not len(values[text]):
        raise DataError(f"{where} has no rows", "a file with rows", "check the file")

    def name(column: str, value: Any, row: int) -> str:
        names = coded.get(column)
        if not names or not isinstance(value, int):
            return as_label(value, f"{where}, row {row}", column)
        return names[value] if 0 <= value < len(names) else ""  # -1: withheld

    texts = tuple(as_text(v, f"{where}, row {k}", text) for k, v in enumerate(values[text], 1))
    labels, *sites = (
        tuple(name(column, v, k) for k, v in enumerate(values[column], 1)) for column in others
    )
    return Columns(texts, labels, sites[0] if sites else (), where, notes=found.notes)
