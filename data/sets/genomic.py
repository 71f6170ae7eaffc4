"""Genomic Benchmarks: a folder as the package downloads it, two tables, or a set of the hub.

Gresova et al. (2023), BMC Genomic Data 24:25. There is no official validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core import DataError, DataSettings
from data.checks import sorted_labels
from data.dataset import Columns, Dataset
from data.readers.columns import Wanted
from data.readers.content import read_text
from data.readers.delimited import read_delimited
from data.readers.hub import hub_columns, load_hub

SPLITS = ("train", "test")
COLUMNS = Wanted("seq", "label")
LAYOUT = (
    "a folder with train.csv and test.csv (columns seq,label), or with a folder a class "
    "in train and in test and a file a sequence in it"
)


class _Genomic:
    """A set of the Genomic Benchmarks, from `data.path` or from the hub (`data.hub_name`)."""

    uses = ("data.path", "data.hub_name")
    kind = "dna"
    has_sites = False

    def __call__(self, settings: DataSettings) -> Dataset:
        """Read the set's two splits."""
        names: Sequence[str] | None = None
        if settings.path:
            folder = Path(settings.path).expanduser()
            name = folder.resolve().name
            train, test = _folder(folder)
        else:
            name = settings.hub_name
            (train, test), names = hub_columns(load_hub(name), name, SPLITS, COLUMNS)
        species = {"0": "human", "1": "worm"}
        demo = "human" in name.lower() and "worm" in name.lower()
        if demo and (names or sorted_labels(train.labels)) == tuple(species):
            return Dataset(train, test, kind="dna", classes=species, name=name)
        return Dataset(train, test, kind="dna", classes=names, name=name)


def _folder(folder: Path) -> list[Columns]:
    """Read both splits in whichever of the two layouts the folder is."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", LAYOUT, "check data.path")
    if all((folder / split).is_dir() for split in SPLITS):
        return [_class_folders(folder / split) for split in SPLITS]
    files = [folder / f"{split}.csv" for split in SPLITS]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} does not exist", LAYOUT, "check data.path")
    return [read_delimited(file, COLUMNS, encoding="utf-8") for file in files]


def _class_folders(folder: Path) -> Columns:
    """Read a folder a class and a file a sequence, by name and by number."""
    files = sorted(folder.glob("*/*.txt"), key=lambda f: (f.parent.name, len(f.stem), f.stem))
    if not files:
        fix = "download the set with the genomic_benchmarks package, or check data.path"
        raise DataError(f"{folder} has no files */*.txt", LAYOUT, fix)
    texts = tuple(read_text(file)[0].strip() for file in files)
    return Columns(texts, tuple(f.parent.name for f in files), files=tuple(map(str, files)))


DATASET = _Genomic()
