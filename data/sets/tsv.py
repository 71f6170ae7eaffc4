"""Tables whose fields are separated by tabs."""

from __future__ import annotations

from pathlib import Path

from core import DataSettings
from data.dataset import Columns
from data.readers.columns import Wanted
from data.readers.delimited import read_delimited
from data.sets._files import TABLE, Files


def _read(path: Path, settings: DataSettings, wanted: Wanted) -> Columns:
    return read_delimited(path, wanted, "tab", settings.encoding)


DATASET = Files(_read, (*TABLE, "data.encoding"))
