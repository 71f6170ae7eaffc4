"""Checks that every reader shares; each failure is one clear `DataError`.

A client's error travels to the server, so a message holds nothing of the rows: it names the
file, the row and what kind of value stands there; at most one letter that is no base or one byte
that is no UTF-8, never the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.rows import Labels, Split, class_rows
from federation import DataError, explain

LETTERS = "ACGTN"
LEAST = 2  # rows of a client: one to train on, one to validate on


def read_text(path: Path) -> str:
    """Read a UTF-8 file whole; a byte-order mark is dropped.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Its text, line ends untouched.

    Raises
    ------
    DataError
        If it is missing, not a file, empty or not UTF-8.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(
            explain(f"{path} {found}", "an existing file", "check data.path and data.test_path")
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            explain(f"{path} cannot be read ({error.strerror})", "a readable file", "check it")
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With the mark dropped, the codec counts bytes from behind it.
        start = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        line = raw.count(b"\n", 0, start) + 1
        raise DataError(
            explain(
                f"{path}, line {line}: byte {raw[start]:#04x} at position {start} is not UTF-8",
                "UTF-8 text",
                "save the file as UTF-8",
            )
        ) from error
    if not text.strip():
        raise DataError(explain(f"{path} is empty", "a file with rows", "check the file"))
    return text


def lines_of(text: str) -> list[str]:
    r"""Split at ``\n`` only (texts may hold other line separators), ``\r`` before it dropped."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def checked_dna(sequences: Sequence[str], where: str) -> tuple[str, ...]:
    """Check the letters of DNA sequences and turn them to upper case.

    Parameters
    ----------
    sequences : sequence of str
        Sequences over A, C, G, T and N, lower case allowed.
    where : str
        The file or data set, for the message.

    Returns
    -------
    tuple of str
        Upper-case sequences.

    Raises
    ------
    DataError
        If a sequence is empty or has another letter; rows count from 1.
    """
    accepted = np.zeros(256, dtype=bool)
    accepted[np.frombuffer((LETTERS + LETTERS.lower()).encode(), dtype=np.uint8)] = True
    # latin-1 with "?" for the rest keeps one byte a letter, so that positions stay right.
    letters = np.frombuffer("".join(sequences).encode("latin-1", "replace"), dtype=np.uint8)
    bad = np.flatnonzero(~accepted[letters])
    ends = np.cumsum([len(sequence) for sequence in sequences])
    if bad.size:
        row = int(np.searchsorted(ends, bad[0], side="right"))
        letter = sequences[row][int(bad[0]) - int(ends[row]) + len(sequences[row])]
        raise DataError(
            explain(
                f"{where}, row {row + 1}: letter {letter!r} in a DNA sequence",
                "A, C, G, T and N in upper or lower case",
                "replace other letters by N, or set data.kind = text if these are texts",
            )
        )
    refuse_blank(sequences, where)
    return tuple(sequence.upper() for sequence in sequences)


def refuse_blank(texts: Sequence[str], where: str) -> None:
    """Raise `DataError` at the first row without text; rows count from 1."""
    for row, text in enumerate(texts, start=1):
        if not text or text.isspace():
            raise DataError(
                explain(f"{where}, row {row}: no text", "a text in every row", "remove the row")
            )


def number_labels(
    values: Sequence[str], classes: tuple[str, ...], where: str, public: bool = False
) -> Labels:
    """Turn label values into indices of `classes`.

    Parameters
    ----------
    values : sequence of str
        One label a row.
    classes : tuple of str
        The accepted values, in order.
    where : str
        The file or data set, for the message.
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
        At the first unknown label; rows count from 1.
    """
    index = {name: number for number, name in enumerate(classes)}
    try:
        return np.fromiter((index[value] for value in values), np.int64, len(values))
    except KeyError:
        row = next(row for row, value in enumerate(values) if value not in index)
        among = f"a label that is not among the {len(classes)} classes"
        raise DataError(
            explain(
                f"{where}, row {row + 1}: {among if values[row] else 'no label'}",
                ", ".join(classes) if public else "a label of one of the classes",
                "correct the row (or data.labels, where that names the classes)",
            )
        ) from None


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
            explain(
                f"{where} has {len(train)} training rows for {len(classes)} classes",
                "at least one row a class, and two in all",
                "add rows, or raise data.train_rows",
            )
        )
    rows = class_rows(train.labels, len(classes))
    if sum(count > 0 for count in rows) < 2:
        raise DataError(
            explain(
                f"{where} has rows of one class only",
                "training rows of two or more classes",
                "add rows of another class, or check data.label_column",
            )
        )


def need_rows(rows: int, least: int, where: str) -> None:
    """Raise `DataError` if a file has fewer than `least` rows."""
    if rows < least:
        raise DataError(
            explain(f"{where} has {rows} rows", f"{least} rows or more", "add rows to the file")
        )


def enough_rows(key: str, wanted: int, rows: int, what: str) -> None:
    """Raise `DataError` if the setting `key` asks for more than the rows there are."""
    if wanted > rows:
        raise DataError(
            explain(
                f"{key} = {wanted}", f"at most the {rows} {what} rows there are", f"lower {key}"
            )
        )
