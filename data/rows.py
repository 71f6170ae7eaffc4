"""The values that carry rows: a split, a data set, what one client holds, what the server holds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["text", "dna"]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.intp]
SERVER_ROWS = 300  # validation rows of the server where `data.server_rows` leaves it open


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Give every purpose its own stream of random numbers.

    Parameters
    ----------
    seed : int
        The run's one seed.
    purpose : str
        What the numbers are for; streams of different purposes are independent.
    *numbers : int
        Further non-negative keys, for instance the client.

    Returns
    -------
    numpy.random.Generator
        The same generator on every machine for the same arguments.
    """
    key = (zlib.crc32(purpose.encode()), *numbers)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True)
class Split:
    """Rows with their labels.

    Attributes
    ----------
    texts : tuple of str
        One text or sequence a row.
    labels : ndarray of int64, shape (rows,)
        Indices into the data set's classes.
    groups : tuple of str
        Value of the partition column a row; empty where there is no such column.
    """

    texts: tuple[str, ...]
    labels: Labels
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse columns of different length.

        Raises
        ------
        ValueError
            Where they differ; the readers report a user's own mistakes before this.
        """
        if self.labels.shape != (len(self.texts),) or len(self.groups) not in (0, len(self.texts)):
            raise ValueError(
                f"{len(self.texts)} texts, labels of shape {self.labels.shape}, "
                f"{len(self.groups)} groups"
            )

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)

    def take(self, indices: npt.ArrayLike) -> Split:
        """Return the rows at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.intp)
        listed = chosen.tolist()
        return Split(
            tuple(self.texts[i] for i in listed),
            self.labels[chosen],
            tuple(self.groups[i] for i in listed) if self.groups else (),
        )


NO_ROWS = Split((), np.zeros(0, dtype=np.int64))


def without_labels(texts: Sequence[str]) -> Split:
    """Return rows whose classes nobody knows: the label of each is -1."""
    return Split(tuple(texts), np.full(len(texts), -1, dtype=np.int64))


def joined(splits: Sequence[Split]) -> Split:
    """Append splits to each other; groups survive only if all have them."""
    held = [split for split in splits if len(split)]
    if not held:
        return NO_ROWS
    grouped = all(split.groups for split in held)
    return Split(
        tuple(text for split in held for text in split.texts),
        np.concatenate([split.labels for split in held]),
        tuple(group for split in held for group in split.groups) if grouped else (),
    )


@dataclass(frozen=True)
class DataInfo:
    """What a data set is, without its rows.

    Attributes
    ----------
    name : str
        Name for people, for instance ``"dna-demo (synthetic)"``.
    kind : {"text", "dna"}
        What a row holds.
    classes : tuple of str
        Class names; a label is an index into them.
    synthetic : bool
        Whether the rows were generated.
    notes : tuple of str
        What the user should know of how they were read and what is odd about them; a line each,
        without anything that a row holds.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    synthetic: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A whole data set: its description and its official splits.

    `validation` is None where the data set has no official one.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    synthetic: bool = False
    notes: tuple[str, ...] = ()

    @property
    def info(self) -> DataInfo:
        """The description alone."""
        return DataInfo(self.name, self.kind, self.classes, self.synthetic, self.notes)


@dataclass(frozen=True)
class Site:
    """What one client holds; `test` is empty where the server does the testing.

    The rows of `unlabelled` have the label -1: a teacher's soft labels are all that is known.
    """

    train: Split
    validation: Split
    test: Split
    unlabelled: Split = NO_ROWS

    @property
    def parts(self) -> tuple[Split, ...]:
        """All that it holds, for digests; rows without labels only where there are any."""
        labelled = self.train, self.validation, self.test
        return (*labelled, self.unlabelled) if len(self.unlabelled) else labelled


@dataclass(frozen=True)
class ServerData:
    """What the server holds.

    Attributes
    ----------
    info : DataInfo
        The data set.
    sites : tuple of Split
        The training rows of each client, for the report's linear baselines only; none where
        nobody knows them (a file per site).
    validation, test : Split
        Rows of the central evaluation; empty under federated evaluation.
    seen : ndarray of bool, shape (test rows,)
        Which test rows stand in the clients' rows too; empty where nobody knows.
    """

    info: DataInfo
    sites: tuple[Split, ...]
    validation: Split
    test: Split
    seen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    @property
    def train(self) -> Split:
        """The training rows of all clients, one client's after the other's."""
        return joined(self.sites)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.info.name

    @property
    def kind(self) -> Kind:
        """What a row holds."""
        return self.info.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.info.classes


def class_rows(labels: Labels, classes: int) -> list[int]:
    """Rows per class, shape (classes,)."""
    counted: list[Any] = np.bincount(labels, minlength=classes).tolist()
    return [int(rows) for rows in counted]
