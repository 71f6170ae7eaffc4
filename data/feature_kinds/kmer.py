"""k-mer frequencies of DNA, the same for both strands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from core import AUTO, DataError, FeatureSettings
from data.feature_kinds._kind import FeatureKind

CHUNK = 2048
_CODES = np.full(256, 4, dtype=np.uint8)
for _code, _letter in enumerate(b"ACGT"):
    _CODES[_letter] = _CODES[_letter + 32] = _code


def kmer_positions(
    sequences: Sequence[str], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find all k-mers that hold no letter but A, C, G, T (lower case as well).

    Parameters
    ----------
    sequences : sequence of str
        The sequences.
    k : int
        Length of the k-mers, 1 to 31.

    Returns
    -------
    (ndarray of int64, ndarray of int64), both of shape (k-mers found,)
        The k-mers as numbers in base 4 (A 0, C 1, G 2, T 3, first letter highest), and the
        row that each lies in.
    """
    # A separator behind each row is no letter, so no k-mer reaches over two rows.
    text = "".join(f"{sequence}-" for sequence in sequences).encode("latin-1", "replace")
    codes = _CODES[np.frombuffer(text, dtype=np.uint8)]
    windows = len(codes) - k + 1
    if windows < 1:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty
    words = np.zeros(windows, dtype=np.int64)
    clean = np.ones(windows, dtype=bool)
    for place in range(k):
        letter = codes[place : place + windows]
        words = words * 4 + letter
        clean &= letter < 4
    lengths = np.array([len(sequence) + 1 for sequence in sequences], dtype=np.int64)
    rows = np.repeat(np.arange(len(sequences), dtype=np.int64), lengths)[:windows]
    return words[clean], rows[clean]


@cache
def _canonical(k: int) -> tuple[npt.NDArray[np.int64], int]:
    """Column of each k-mer: that of itself or its reverse complement, whichever is lower."""
    words = np.arange(4**k, dtype=np.int64)
    reverse, rest = np.zeros_like(words), words
    for _ in range(k):
        reverse = reverse * 4 + (3 - rest % 4)
        rest = rest // 4
    kept, columns = np.unique(np.minimum(words, reverse), return_inverse=True)
    return columns.astype(np.int64), len(kept)


def kmer_frequencies(sequences: Sequence[str], k: int) -> npt.NDArray[np.float32]:
    """Count k-mers together with their reverse complements, as shares of a row's k-mers.

    A sequence and its reverse complement have the same features.

    Parameters
    ----------
    sequences : sequence of str
        DNA, upper or lower case. k-mers with an N are left out.
    k : int
        Length of the k-mers, at least 1.

    Returns
    -------
    ndarray of float32, shape (rows, canonical k-mers)
        Shares that add up to 1 in a row (all 0 in a row without any k-mer); columns in
        alphabetical order of the lower one of the two k-mers: 2, 10, 32, 136, 512, 2,080 for
        k = 1 to 6.

    Raises
    ------
    DataError
        If no sequence has a k-mer.
    """
    columns, features = _canonical(k)
    frequencies = np.zeros((len(sequences), features), dtype=np.float32)
    for start in range(0, len(sequences), CHUNK):
        chunk = sequences[start : start + CHUNK]
        words, rows = kmer_positions(chunk, k)
        counts = np.bincount(rows * features + columns[words], minlength=len(chunk) * features)
        counts = counts.reshape(len(chunk), features)
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        frequencies[start : start + CHUNK] = counts / totals
    if len(sequences) and not frequencies.any():
        raise DataError(
            f"none of {len(sequences)} sequences has {k} letters of A, C, G, T in a row",
            f"sequences of {k} letters or more",
            "lower features.k, or check the sequences",
        )
    return frequencies


def random_frequencies(columns: int) -> npt.NDArray[np.float64]:
    """Return the features (columns,) of random letters, all alike: a constant that is public.

    Parameters
    ----------
    columns : int
        Canonical k-mers, by which k is known; of another number all are 0.
    """
    for k in range(1, 7):
        columns_of, found = _canonical(k)
        if found == columns:
            return np.bincount(columns_of, minlength=found) / 4.0**k
    return np.zeros(columns)


def moment_centre(name: str, columns: int) -> npt.NDArray[np.float64]:
    """Return from where rows of so many features are shortened (`privacy.moment_centre`)."""
    return np.zeros(columns) if name == "zero" else random_frequencies(columns)


USUAL = 4
TRIED = (USUAL, 3, 5)
"""Values of k that `auto` tries: second moments of 5-mers are 2 MB a site, of 6-mers 35 MB."""


def _length(settings: FeatureSettings) -> int:
    return USUAL if settings.k == AUTO else settings.k


KIND = FeatureKind(
    rows=("dna",),
    make=lambda rows, settings, embed: kmer_frequencies(rows, _length(settings)),
    columns=lambda settings, length: _canonical(_length(settings))[1],
    uses=("features.k",),
    variants=TRIED,
)
