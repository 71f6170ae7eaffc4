"""Which raw features a data set gets; k-mer frequencies against a slow twin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import DataError, FeatureSettings, SettingsError
from data import feature_kind, features, kmer_frequencies, raw_features

ROWS = ("ACGTAC", "GGGTTA")


def embed(texts: Sequence[str]) -> np.ndarray:
    return np.full((len(texts), 7), 0.5, dtype=np.float32)


def refuse(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("embedded")


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ("dna", "auto", "kmer"),
        ("dna", "kmer", "kmer"),
        ("dna", "embedding", "embedding"),
        ("text", "auto", "embedding"),
        ("text", "embedding", "embedding"),
    ],
)
def test_kind_of_the_features(
    kind: Literal["text", "dna"], asked: Literal["auto", "kmer", "embedding"], expected: str
) -> None:
    wanted = FeatureSettings(kind=asked, k=2)
    assert feature_kind(kind, wanted) == expected
    if expected == "kmer":
        found = raw_features(ROWS, kind, wanted, refuse)
        np.testing.assert_array_equal(found, kmer_frequencies(ROWS, 2))
    else:
        assert raw_features(ROWS, kind, wanted, embed).shape == (2, 7)


def test_texts_have_no_kmers() -> None:
    wanted = FeatureSettings(kind="kmer")
    message = r"features.kind = kmer with data of kind text; accepted: embedding or auto for texts"
    with pytest.raises(SettingsError, match=message):
        feature_kind("text", wanted)
    with pytest.raises(SettingsError, match=message):
        raw_features(ROWS, "text", wanted, refuse)


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
    monkeypatch.setattr(features, "CHUNK", 2)
    np.testing.assert_array_equal(kmer_frequencies(sequences, 3), whole)


def test_no_sequences() -> None:
    assert kmer_frequencies([], 3).shape == (0, 32)


def test_sequences_without_any_kmer() -> None:
    with pytest.raises(DataError, match=r"none of 2 sequences has 4 letters .* lower features.k"):
        kmer_frequencies(["ACG", "ACNGT"], 4)
