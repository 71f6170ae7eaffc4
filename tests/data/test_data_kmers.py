"""k-mer frequencies against their slow twin."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import DataError
from data import kmer_frequencies
from data import kmers as module

COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
dna = st.text(alphabet="ACGTNacgtn", min_size=0, max_size=40)


def reversed_complement(sequence: str) -> str:
    """Read the other strand."""
    return "".join(COMPLEMENT[letter] for letter in reversed(sequence.upper()))


def slow_frequencies(sequence: str, k: int) -> list[float]:
    """Count with dictionaries, one k-mer at a time."""
    names = sorted(
        {min(w, reversed_complement(w)) for w in map("".join, product("ACGT", repeat=k))}
    )
    counts = dict.fromkeys(names, 0)
    upper = sequence.upper()
    for start in range(len(upper) - k + 1):
        word = upper[start : start + k]
        if "N" not in word:
            counts[min(word, reversed_complement(word))] += 1
    total = sum(counts.values()) or 1
    return [counts[name] / total for name in names]


@settings(deadline=None)
@given(st.lists(dna, min_size=1, max_size=5), st.integers(1, 4))
def test_agrees_with_the_slow_twin(sequences: list[str], k: int) -> None:
    slow = np.array([slow_frequencies(sequence, k) for sequence in sequences])
    if not slow.any():
        with pytest.raises(DataError, match=f"has {k} letters"):
            kmer_frequencies(sequences, k)
        return
    fast = kmer_frequencies(sequences, k)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=1e-6)


@given(st.text(alphabet="ACGTN", min_size=30, max_size=60))
def test_both_strands_look_the_same(sequence: str) -> None:
    padded = sequence + "ACGTA"
    both = kmer_frequencies([padded, reversed_complement(padded)], 4)
    np.testing.assert_array_equal(both[0], both[1])


def test_by_hand() -> None:
    # AC CG GT: AC and GT are one k-mer, CG its own reverse complement.
    # Columns: AA AC AG AT CA CC CG GA GC TA.
    expected = np.zeros(10)
    expected[[1, 6]] = 2 / 3, 1 / 3
    np.testing.assert_allclose(kmer_frequencies(["acgt"], 2)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("k", "count"), [(1, 2), (2, 10), (3, 32), (4, 136), (5, 512), (6, 2080)])
def test_number_of_features(k: int, count: int) -> None:
    assert kmer_frequencies(["ACGTACGTAC"], k).shape == (1, count)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = ["ACGTTGCA", "NNN", "GGGTTTCACG", "acgtnacgt", "TTTTT"]
    whole = kmer_frequencies(sequences, 3)
    monkeypatch.setattr(module, "CHUNK", 2)
    np.testing.assert_array_equal(kmer_frequencies(sequences, 3), whole)


def test_no_sequences() -> None:
    assert kmer_frequencies([], 3).shape == (0, 32)


def test_sequences_without_any_kmer() -> None:
    with pytest.raises(DataError, match=r"none of 2 sequences has 4 letters .* lower features.k"):
        kmer_frequencies(["ACG", "ACNGT"], 4)
