"""What a data set is before its rows are checked: texts with labels, splits, classes, sites."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core import DataError
from data.rows import Kind
from data.text import as_label, type_name


@dataclass(frozen=True)
class Columns:
    """Rows as they were read, one entry a row.

    Attributes
    ----------
    texts, labels, sites : sequence of str
        The columns; `sites` is empty where none was wanted.
    where : str
        The file or split, for messages.
    lines : sequence of int
        The line that each row begins in; empty: rows are counted from 1.
    files : sequence of str
        The file of each row, where there are several.
    labels_where : str
        The file of the labels, where they have one of their own.
    notes : tuple of str
        What the user should know of how they were read.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    sites: Sequence[str] = ()
    where: str = ""
    lines: Sequence[int] = ()
    files: Sequence[str] = ()
    labels_where: str = ""
    notes: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """Say where a row (from 0) stands."""
        return self._in(self.files[row] if self.files else self.where, row)

    def label_place(self, row: int) -> str:
        """Say where the label of a row stands."""
        return self._in(self.labels_where, row) if self.labels_where else self.place(row)

    def _in(self, file: str, row: int) -> str:
        if self.lines:
            return f"{file}, line {self.lines[row]}"
        return file if self.files else f"{file}, row {row + 1}"


Rows = tuple[Collection[str], Collection[Any]]
"""Texts and labels of the same length."""

SPLITS = ("train", "test", "validation")


@dataclass(frozen=True)
class Dataset:
    """What a data set's function returns: rows, labels and splits.

    Attributes
    ----------
    train : (sequence of str, sequence of str, int or bool)
        Texts or DNA sequences, and the label of each: a class name; or, where `classes` is a list
        and all labels are whole numbers, the place in it.
    test : same, optional
        Held-out test rows; None: `data.test_fraction` of the training rows are held out.
    validation : same, optional
        Official validation rows, for the server; None: some of the training rows.
    kind : {"text", "dna"}
        What a row holds.
    classes : sequence of str or mapping, optional
        Class names in order; or by label, where labels are no names (``{"0": "human"}``). None:
        the sorted labels of the training rows.
    sites : sequence of str or int, optional
        Site of each training row, for `data.partition=column`.
    name : str, optional
        Name for people; empty: that of the data set's setting.
    notes : tuple of str, optional
        What the user should know of how the rows were made, a line each; they reach the server.

    Raises
    ------
    DataError
        If a split is no pair, is empty, or its texts, labels and sites are not of one length or
        type; one line that names the split and the row.

    Examples
    --------
    >>> Dataset(train=(["good film", "bad film"], ["pos", "neg"]))
    """

    train: Rows | Columns
    test: Rows | Columns | None = None
    validation: Rows | Columns | None = None
    kind: Kind = "text"
    classes: Sequence[str] | Mapping[Any, str] | None = None
    sites: Collection[Any] | None = None
    name: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check all of it: the parts are made of the columns."""
        if self.kind not in ("text", "dna"):
            given = f"kind of a Dataset is {type_name(self.kind)} that is no kind"
            raise DataError(given, "'text' or 'dna'", "correct kind")
        if isinstance(self.classes, str) or (self.classes is not None and len(self.classes) < 2):
            given = "classes of a Dataset are fewer than two names"
            raise DataError(given, "two or more class names, or None", "correct classes")
        if self.classes is not None:
            names = list(
                self.classes.values() if isinstance(self.classes, Mapping) else self.classes
            )
            if twice := next((name for name in names if names.count(name) > 1), None):
                what = f"classes of a Dataset have {twice!r} twice"
                raise DataError(what, "a name once", "correct classes, or the labels of the rows")
        _ = self.parts

    @cached_property
    def parts(self) -> dict[str, Columns]:
        """The splits that there are, as columns."""
        found = {name: getattr(self, name) for name in SPLITS}
        given = {name: rows for name, rows in found.items() if name == "train" or rows is not None}
        return {name: _columns(name, rows, self.sites) for name, rows in given.items()}

    @cached_property
    def names(self) -> dict[str, str] | None:
        """Class names by label, in order; None where the labels are to make them."""
        if self.classes is None:
            return None
        if isinstance(self.classes, Mapping):
            return {as_label(key, "Dataset", "classes"): n for key, n in self.classes.items()}
        numbered = all(_whole(getattr(self, name)) for name in SPLITS)
        return {str(k) if numbered else name: name for k, name in enumerate(self.classes)}


def _whole(rows: Rows | Columns | None) -> bool:
    """Whether the labels are places in the list of the classes."""
    if rows is None or isinstance(rows, Columns):
        return rows is None
    return all(not isinstance(label, str | bool) for label in rows[1])


def _columns(split: str, rows: Rows | Columns, sites: Collection[Any] | None) -> Columns:
    """Check a split and return its columns."""
    if isinstance(rows, Columns):
        return rows
    fix = f"correct {split} of the Dataset"
    if not isinstance(rows, tuple | list) or len(rows) != 2:
        given = f"{split} of a Dataset is {type_name(rows)}"
        raise DataError(given, "a pair: the rows and their labels", fix)
    texts, labels, where = (
        _listed(rows[0]),
        _listed(rows[1]),
        _listed(() if sites is None else sites),
    )
    if split != "train":
        where = []
    counts = f"{split} of a Dataset has {len(texts)} rows and {len(labels)} labels"
    if not texts or len(texts) != len(labels):
        raise DataError(counts, "as many labels as rows, and one at least", fix)
    if where and len(where) != len(texts):
        given = f"{split} of a Dataset has {len(texts)} rows and {len(where)} sites"
        raise DataError(given, "a site for every training row", "correct sites of the Dataset")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            given = f"row {row + 1} of {split} of a Dataset is {type_name(text)}"
            raise DataError(given, "a text", fix)
    return Columns(
        tuple(map(str, texts)),
        tuple(as_label(v, f"{split}, row {k + 1}", "label") for k, v in enumerate(labels)),
        tuple(as_label(v, f"{split}, row {k + 1}", "site") for k, v in enumerate(where)),
        where=split,
    )


def _listed(values: Any) -> list[Any]:
    """Return the entries of a list, array or column; of anything else none."""
    if isinstance(values, str) or not (hasattr(values, "__iter__") and hasattr(values, "__len__")):
        return []
    return list(values)
