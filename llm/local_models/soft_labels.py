"""`soft-labels`: probabilities that were computed beforehand, for instance by a large model.

A file, or a folder of them, says for each text how likely each class is. A row is found by its text
or by the sha256 of its text (UTF-8), so nothing depends on the order of rows or on how they are
split; a row that no file has is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core import DataError, SettingsError, short_message
from llm.protocol import ModelContext

SUFFIXES = (".csv", ".tsv", ".parquet", ".npz")
KEYS = ("text", "sha256")
"""Columns that say which row it is: one of them."""


class SoftLabels:
    """A table of soft labels.

    csv, tsv and parquet have a column ``text`` or ``sha256``, and one column of probabilities for
    each class, called as the class (any order), or ``0`` to ``C - 1`` in the order of the classes.
    npz has the arrays ``text`` or ``sha256``, (rows,), ``probabilities``, (rows, C), and, unless
    they are in the data's order, ``classes``, (C,).

    Parameters
    ----------
    path : str
        A file, or a folder whose files of these kinds are all read.
    context : ModelContext or None
        Has the class names.

    Raises
    ------
    core.SettingsError, core.DataError
        If there is no such file, or it is not of this form.
    """

    learns = False
    path_options = ("path",)

    def __init__(self, path: str = "", context: ModelContext | None = None) -> None:
        self.files = _files(str(path))
        self.class_names = context.class_names if context else ()
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        self.identity = " ".join(digests)
        self._table: dict[str, np.ndarray] = {}

    def fit(
        self,
        rows: Sequence[str],
        labels: np.ndarray,
        validation_rows: Sequence[str],
        validation_labels: np.ndarray,
        classes: int,
        seed: int,
    ) -> None:
        """Read the files; nothing is learned.

        Raises
        ------
        core.DataError
            If a file is not of the form above, or two rows of one text differ.
        """
        names = self.class_names or tuple(map(str, range(classes)))
        for file in self.files:
            for key, values in _rows(file, names):
                if not np.array_equal(self._table.setdefault(key, values), values):
                    given = f"{file.name}: two soft labels of one text"
                    full = f"{given} (sha256 {key[:12]}...)"
                    raise DataError(full, "one of a text", "remove one of them", elsewhere=given)

    def soft_labels(self, rows: Sequence[str]) -> np.ndarray:
        """Return the rows' probabilities as the files have them, float64, (rows, C).

        Raises
        ------
        core.DataError
            If a row is in none of the files.
        """
        keys = [digest(row) for row in rows]
        missing = [row for row, key in enumerate(keys) if key not in self._table]
        if missing:
            first = " ".join(rows[missing[0]].split())[:40]
            which = f"no soft label of {len(missing):,} of {len(rows):,} rows"
            raise DataError(
                f"{which}, the first begins {first!r} (sha256 {keys[missing[0]][:12]}...)",
                "one of each training and validation row of the site",
                f"add them to {self.files[0].parent.name}, or set llm.model to another teacher",
                elsewhere=which,
            )
        return np.array([self._table[key] for key in keys])


def digest(text: str) -> str:
    """Return what a row is found by: the sha256 of its text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    if not path or not place.exists():
        given = (
            f"llm.options = 'path={path}': there is no such file or folder"
            if path
            else ("llm.model = 'soft-labels' without llm.options")
        )
        accepted = f"a file ({', '.join(SUFFIXES)}) of soft labels, or a folder of such files"
        raise SettingsError(given, accepted, "set llm.options=path=FOLDER")
    if place.is_file():
        return [place]
    found = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        given = f"llm.options = 'path={path}': a folder without {', '.join(SUFFIXES)}"
        raise SettingsError(given, "files of soft labels", "put them there")
    return found


def _rows(file: Path, names: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each row's digest and its probabilities, (C,), in the order of the classes."""
    columns = _columns(file)
    (key, *more) = [name for name in KEYS if name in columns] or [""]
    numbered = [str(number) for number in range(len(names))]
    held = sorted(set(columns) - set(KEYS))
    order = next((list(one) for one in (names, numbered) if held == sorted(one)), None)
    if not key or more or order is None:
        given = f"{file.name} with the columns {', '.join(columns)}"
        accepted = f"text or sha256, and a column for each class: {', '.join(names)}"
        raise DataError(given, accepted, "rename its columns")
    try:
        values = np.array([columns[name] for name in order], dtype=np.float64).T
    except ValueError as error:
        given, accepted = f"{file.name}: {error}", "numbers in each column of a class"
        raise DataError(given, accepted, "correct it", elsewhere=file.name) from None
    for text, row in zip(columns[key], values, strict=True):
        yield (digest(str(text)) if key == "text" else str(text).strip().lower()), row


def _columns(file: Path) -> dict[str, Any]:
    """Read a file's columns by name."""
    import pandas as pd

    suffix = file.suffix.lower()
    try:
        if suffix == ".npz":
            return _arrays(file)
        if suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            separator = "\t" if suffix == ".tsv" else ","
            table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)
    except Exception as error:  # the readers raise nearly everything
        which = f"{file} cannot be read ({type(error).__name__}"
        given, accepted = (
            f"{which}: {short_message(error)})",
            f"a file of soft labels ({', '.join(SUFFIXES)})",
        )
        raise DataError(given, accepted, "correct it", elsewhere=f"{which})") from error
    return {str(name): table[name].to_list() for name in table.columns}


def _arrays(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        values = arrays["probabilities"]
        names = arrays["classes"] if "classes" in arrays else range(values.shape[1])
        found = {key: arrays[key].tolist() for key in KEYS if key in arrays}
        return found | {str(name): values[:, at].tolist() for at, name in enumerate(names)}


MODEL = SoftLabels
