"""Parquet files."""

from __future__ import annotations

from pathlib import Path

from core import DataSettings
from data.dataset import Columns
from data.readers.arrow import read_parquet
from data.readers.columns import Wanted
from data.sets._files import Files


def _read(path: Path, settings: DataSettings, wanted: Wanted) -> Columns:
    return read_parquet(path, wanted)


DATASET = Files(_read)
