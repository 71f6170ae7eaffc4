"""One-hot by position: which letter stands where, for aligned sequences of one length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core import DataError
from data.feature_kinds._kind import FeatureKind, Features

LETTERS = "ACGT"
CODES = {
    **{letter: letter for letter in LETTERS},
    **{"U": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"},
    **{"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"},
}
"""The letters that a letter may stand for (IUPAC)."""

MOST_LETTERS = 512
"""Longest sequence: the second moments of its 2,048 features are 34 MB, those of 6-mers 35 MB."""

MOST_TRIED = 256
"""Longest sequence that `auto` tries it on: 8 MB from each site."""


def _shares() -> Features:
    """Return each byte's shares of A, C, G, T, (256, 4)."""
    table = np.zeros((256, 4), dtype=np.float32)
    for code, letters in CODES.items():
        for case in (code, code.lower()):
            table[ord(case), [LETTERS.index(letter) for letter in letters]] = 1 / len(letters)
    return table


SHARES = _shares()


def one_hot(sequences: Sequence[str]) -> Features:
    """Mark the letter at each position.

    A row is divided by the square root of its length, so that its norm is 1, as that of k-mer
    frequencies is 1 at most: the projection, which standardises features, is not changed by that.

    Parameters
    ----------
    sequences : sequence of str
        Aligned DNA of one length L, upper or lower case.

    Returns
    -------
    ndarray of float32, shape (rows, 4 L)
        For each position A, C, G, T: 1 / sqrt(L) for the letter that is there, 0 for the others. A
        code for m letters (N for all four, R for A or G ...) counts as 1 / m of each; any other
        letter, for instance a gap, as none.

    Raises
    ------
    DataError
        If the sequences differ in length, or are longer than `MOST_LETTERS`.
    """
    lengths = {len(sequence) for sequence in sequences} or {0}
    shortest, length = min(lengths), max(lengths)
    if shortest != length:
        raise DataError(
            f"sequences of {shortest} to {length} letters with one-hot features",
            "aligned sequences of one length",
            "cut them to one length, or set features.kind=kmer",
        )
    if length > MOST_LETTERS:
        raise DataError(
            f"sequences of {length} letters with one-hot features",
            f"at most {MOST_LETTERS}",
            "cut them to where they are aligned, or set features.kind=kmer",
        )
    text = "".join(sequences).encode("latin-1", "replace")
    shares = SHARES[np.frombuffer(text, dtype=np.uint8)].reshape(len(sequences), 4 * length)
    return np.asarray(shares / np.float32(max(length, 1) ** 0.5))


KIND = FeatureKind(
    rows=("dna",),
    make=lambda rows, settings, embed: one_hot(rows),
    columns=lambda settings, length: 4 * length,
    most_letters=MOST_TRIED,
)
