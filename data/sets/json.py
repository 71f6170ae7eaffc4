"""Files with one JSON array of objects."""

from __future__ import annotations

from pathlib import Path

from core import DataSettings
from data.dataset import Columns
from data.readers.columns import Wanted
from data.readers.objects import read_array
from data.sets._files import TABLE, Files


def _read(path: Path, settings: DataSettings, wanted: Wanted) -> Columns:
    return read_array(path, wanted, settings.encoding)


DATASET = Files(_read, (*TABLE, "data.encoding"))
