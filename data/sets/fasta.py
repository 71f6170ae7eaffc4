"""FASTA: the label in each header, or a file a class."""

from __future__ import annotations

from pathlib import Path

from core import DataSettings
from data.dataset import Columns
from data.readers.columns import Wanted
from data.readers.sequences import read_sequences
from data.sets._files import FILES, Files


def _read(path: Path, settings: DataSettings, wanted: Wanted) -> Columns:
    return read_sequences(path, "fasta", settings.label_pattern, settings.encoding)


DATASET = Files(_read, (*FILES, "data.encoding", "data.label_pattern"), "dna", has_sites=False)
