"""What the formats of a user's own files have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core import DataError, DataSettings
from data.checks import class_names
from data.dataset import Columns, Dataset
from data.readers.columns import Wanted, wanted_columns
from data.rows import Kind

FILES = ("data.path", "data.test_path", "data.per_site", "data.labels", "data.test_fraction")
TABLE = (
    *FILES,
    "data.kind",
    "data.text_column",
    "data.label_column",
    "data.partition_column",
)
"""Settings that tables read."""

Read = Callable[[Path, DataSettings, Wanted], Columns]


@dataclass(frozen=True)
class Files:
    """A format: `read` turns one file into columns.

    Attributes
    ----------
    read : callable
        Of the file, the settings and the wanted columns.
    uses : tuple of str
        Settings that it reads.
    kind : {"text", "dna"}, optional
        What its rows always hold.
    has_sites : bool
        Whether a column may name the sites.
    needs_path : bool
        Whether `data.path` must be given.
    """

    read: Read
    uses: tuple[str, ...] = TABLE
    kind: Kind | None = None
    has_sites: bool = True
    needs_path: bool = True

    def __call__(self, settings: DataSettings) -> Dataset:
        """Read `data.path`, and `data.test_path` if there is one.

        A folder with the folders ``train`` and ``test``, of a format that reads folders, has both.
        """
        if not settings.path:
            given = f"data.source = {settings.source} without data.path"
            raise DataError(given, "the path of a file", "set data.path")
        path = Path(settings.path).expanduser()
        test = Path(settings.test_path).expanduser() if settings.test_path else None
        name = path.name
        if test is None and (path / "train").is_dir() and (path / "test").is_dir():
            path, test = path / "train", path / "test"
        return Dataset(
            self.read(path, settings, wanted_columns(settings)),
            self.read(test, settings, wanted_columns(settings, test=True)) if test else None,
            kind=self.kind or settings.kind,
            classes=class_names(settings.labels) if settings.labels else None,
            name=name,
        )
