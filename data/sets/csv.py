"""Tables whose fields are separated by commas, or by what `data.delimiter` says."""

from __future__ import annotations

from pathlib import Path

from core import DataSettings
from data.dataset import Columns
from data.readers.columns import Wanted
from data.readers.delimited import read_delimited
from data.sets._files import TABLE, Files


def _read(path: Path, settings: DataSettings, wanted: Wanted) -> Columns:
    return read_delimited(path, wanted, settings.delimiter, settings.encoding)


DATASET = Files(_read, (*TABLE, "data.encoding", "data.delimiter"))
