"""Checks that every reader shares; each failure is one clear `DataError`.

A client's error travels to the server, so a message holds nothing of the rows: it names the
file, the row and what kind of value stands there; at most one letter that is no base or one byte
that is no UTF-8, never the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core import DataError, SettingsError
from core.formatting import display_safe, join_list, split_list
from data.rows import Labels, Split, class_rows
from data.text import Place, count_note, refuse_blank

LETTERS = "ACGTN"
SHORTEST_DNA = 8  # letters from which on a text of these letters only is no word
MOST_CLASSES = 100  # that a file's labels may make by themselves
LEAST = 2  # rows of a client: one to train on, one to validate on


def checked_dna(sequences: Sequence[str], place: Place) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check the letters of sequences and turn them to upper case; the U of RNA is read as T.

    Parameters
    ----------
    sequences : sequence of str
        Sequences over A, C, G, T (or U) and N, lower case allowed.
    place : callable
        Where a row stands.

    Returns
    -------
    (tuple of str, tuple of str)
        Upper-case DNA sequences, and one line if some were RNA.

    Raises
    ------
    DataError
        If a sequence is empty or has another letter.
    """
    accepted = np.zeros(256, dtype=bool)
    accepted[np.frombuffer((LETTERS + LETTERS.lower() + "Uu").encode(), dtype=np.uint8)] = True
    # latin-1 with "?" for the rest keeps one byte a letter, so that positions stay right.
    letters = np.frombuffer("".join(sequences).encode("latin-1", "replace"), dtype=np.uint8)
    bad = np.flatnonzero(~accepted[letters])
    ends = np.cumsum([len(sequence) for sequence in sequences])
    if bad.size:
        row = int(np.searchsorted(ends, bad[0], side="right"))
        letter = sequences[row][int(bad[0]) - int(ends[row]) + len(sequences[row])]
        raise DataError(
            f"{place(row)}: letter {letter!r} in a DNA sequence",
            "A, C, G, T and N in upper or lower case, or U for RNA",
            "replace other letters by N, or set data.kind = text if these are texts",
        )
    refuse_blank(sequences, place)
    upper = [sequence.upper() for sequence in sequences]
    rna = [row for row, sequence in enumerate(upper) if "U" in sequence]
    dna = tuple(sequence.replace("U", "T") for sequence in upper)
    return dna, tuple(count_note(rna, place, "RNA: each U is read as T"))


def refuse_dna(texts: Sequence[str], where: str) -> None:
    """Raise `DataError` where all texts are sequences: as words they would mean nothing."""
    letters = set(LETTERS + LETTERS.lower() + "Uu")
    if all(len(text) >= SHORTEST_DNA and letters.issuperset(text) for text in texts):
        raise DataError(
            f"{where}: every text is a sequence of the letters A, C, G, T and N",
            "data.kind = dna for sequences",
            "set data.kind = dna",
        )


def refuse_many_classes(classes: Sequence[str], rows: int, where: str) -> None:
    """Raise `DataError` where the values of a label column are too many to be classes."""
    many = len(classes)
    if many > MOST_CLASSES or (many > 10 and many > rows / 2):
        raise DataError(
            f"{where}: {many:,} different labels in {rows:,} rows",
            f"at most {MOST_CLASSES} classes with several rows each; a number to be predicted "
            "or an id is no class",
            "set data.label_column to the column of the classes, or put the values into "
            "classes (low, high)",
        )


def number_labels(
    values: Sequence[str], classes: tuple[str, ...], place: Place, public: bool = False
) -> Labels:
    """Turn label values into indices of `classes`.

    Parameters
    ----------
    values : sequence of str
        One label a row.
    classes : tuple of str
        The accepted values, in order.
    place : callable
        Where a row stands.
    public : bool
        Whether the classes come from settings or a published set, so that a message may list
        them; those found in a user's file might be texts, taken from a wrong column.

    Returns
    -------
    ndarray of int64, shape (rows,)
        Index of each row's class.

    Raises
    ------
    DataError
        At the first unknown label.
    """
    index = {name: number for number, name in enumerate(classes)}
    try:
        return np.fromiter((index[value] for value in values), np.int64, len(values))
    except KeyError:
        row = next(row for row, value in enumerate(values) if value not in index)
        among = f"a label that is not among the {len(classes)} classes"
        raise DataError(
            f"{place(row)}: {among if values[row] else 'no label'}",
            join_list(classes) if public else "a label of one of the classes",
            "correct the row (or data.labels, where that names the classes)",
        ) from None


def class_names(labels: str) -> tuple[str, ...]:
    """Split the setting `data.labels` at its commas, but those in double quotes.

    Raises
    ------
    SettingsError
        If it names one class only, a class twice, or nothing between two commas.
    """
    names = split_list(labels)
    if len(names) < 2 or len(set(names)) < len(names) or "" in names:
        raise SettingsError(
            f"data.labels = {labels!r}",
            "two or more different class names, comma-separated; in double quotes one with a comma",
            "correct data.labels",
        )
    return names


def sorted_labels(values: Sequence[str]) -> tuple[str, ...]:
    """Distinct labels but the empty one: by value if all are whole numbers, else by letters."""
    distinct = set(values) - {""}
    if all(value.removeprefix("-").isdecimal() for value in distinct):
        return tuple(sorted(distinct, key=lambda value: (int(value), value)))
    return tuple(sorted(distinct))


def check_learnable(train: Split, classes: tuple[str, ...], where: str) -> None:
    """Refuse training rows that nothing can be learned from.

    Raises
    ------
    DataError
        If there are fewer rows than classes, or rows of one class only.
    """
    if len(train) < max(2, len(classes)):
        raise DataError(
            f"{where} has {len(train)} training rows for {len(classes)} classes",
            "at least one row a class, and two in all",
            "add rows, or raise data.train_rows",
        )
    rows = class_rows(train.labels, len(classes))
    if sum(count > 0 for count in rows) < 2:
        raise DataError(
            f"{where} has rows of one class only",
            "training rows of two or more classes",
            "add rows of another class, or check data.label_column",
        )


def need_rows(rows: int, least: int, where: str) -> None:
    """Raise `DataError` if a file has fewer than `least` rows."""
    if rows < least:
        raise DataError(
            f"{where} has {rows} rows",
            f"{least} rows or more, for the test, the server's validation and {LEAST} a client",
            "add rows to the file, or lower run.clients",
        )


def enough_rows(key: str, wanted: int, rows: int, what: str) -> None:
    """Raise `DataError` if the setting `key` asks for more than the rows there are."""
    if wanted > rows:
        raise DataError(
            f"{key} = {wanted}", f"at most the {rows} {what} rows there are", f"lower {key}"
        )


@dataclass(frozen=True)
class RowIssues:
    """Rows that make a result look better, or worth less, than it is.

    Attributes
    ----------
    rows : int
        Training rows, those that clients validate on among them.
    repeated : int
        Training rows whose text stood in an earlier row.
    contradictory : int
        Texts that stand in training rows of different labels.
    seen : ndarray of bool, shape (test rows,)
        Which test rows' texts stand in training rows too.
    untested : tuple of int
        Classes without a test row; none if there are no test rows at all.
    """

    rows: int
    repeated: int
    contradictory: int
    seen: npt.NDArray[np.bool_]
    untested: tuple[int, ...]

    def notes(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Say it, a line each; nothing where nothing is odd."""
        lines = []
        if self.repeated:
            line = f"{self.repeated:,} of {self.rows:,} training rows repeat the text of another"
            if self.contradictory:
                line += f"; texts with different labels: {self.contradictory:,}"
            lines.append(line)
        if self.seen.any():
            lines.append(
                f"{int(self.seen.sum()):,} of {len(self.seen):,} test rows stand in the training "
                "rows too, so the test is easier than new rows would be"
            )
        if self.untested:
            named = ", ".join(display_safe(classes[label]) for label in self.untested)
            lines.append(f"no test row of the class {named}")
        return tuple(lines)


def find_row_issues(train: Split, test: Split, classes: int) -> RowIssues:
    """Look for repeated rows, test rows that were trained on, and classes without a test.

    Parameters
    ----------
    train, test : Split
        The rows; either may be empty.
    classes : int
        Number of classes.
    """
    texts = set(train.texts)
    pairs = set(zip(train.texts, train.labels.tolist(), strict=True))
    seen = np.fromiter((text in texts for text in test.texts), bool, len(test))
    present = set(test.labels.tolist()) or range(classes)
    return RowIssues(
        rows=len(train),
        repeated=len(train) - len(texts),
        contradictory=len(pairs) - len(texts),
        seen=seen,
        untested=tuple(label for label in range(classes) if label not in present),
    )
