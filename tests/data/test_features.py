"""Which raw features a data set gets; k-mers and one-hot against slow twins; kinds side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import DataError, FeatureSettings, SettingsError, kind_names, kind_of, parse_run
from data import (
    block_columns,
    candidate_kinds,
    check_lengths,
    common_length,
    feature_kind,
    kmer_frequencies,
    one_hot,
    raw_features,
    unfit,
    with_kind,
)
from data.feature_kinds import kmer

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
    monkeypatch.setattr(kmer, "CHUNK", 2)
    np.testing.assert_array_equal(kmer_frequencies(sequences, 3), whole)


def test_no_sequences() -> None:
    assert kmer_frequencies([], 3).shape == (0, 32)


def test_sequences_without_any_kmer() -> None:
    with pytest.raises(DataError, match=r"none of 2 sequences has 4 letters .* lower features.k"):
        kmer_frequencies(["ACG", "ACNGT"], 4)


def test_one_hot_by_hand() -> None:
    expected = np.zeros((2, 4, 4))
    expected[0, range(4), range(4)] = 1  # A C G T
    expected[1, 0, [0, 2]] = 0.5  # R is A or G
    expected[1, 1] = 0.25  # N is any
    expected[1, 2, 3] = 1  # t is T, and a gap none of them
    found = one_hot(["ACGT", "RNt-"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.reshape(2, 16) / 2, rtol=1e-6)


LETTERS = {"A": "A", "C": "C", "G": "G", "T": "T", "U": "T", "R": "AG", "B": "CGT", "N": "ACGT"}


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(st.text("ACGTURBNacgturbn", min_size=n, max_size=n), min_size=1)
    )
)
def test_one_hot_agrees_with_the_slow_twin(sequences: list[str]) -> None:
    slow = [
        [(base in LETTERS[x]) / len(LETTERS[x]) for x in sequence.upper() for base in "ACGT"]
        for sequence in sequences
    ]
    length = len(sequences[0])
    fast = one_hot(sequences)
    np.testing.assert_allclose(fast, np.array(slow) / np.sqrt(length), rtol=1e-6)
    assert (np.linalg.norm(fast, axis=1) <= 1 + 1e-6).all()


def test_one_hot_takes_one_length_that_is_not_too_long() -> None:
    with pytest.raises(DataError, match=r"sequences of 3 to 5 letters .* one length; .*kmer"):
        one_hot(["ACG", "ACGTT"])
    with pytest.raises(DataError, match=r"sequences of 513 letters .*; accepted: at most 512;"):
        one_hot(["A" * 513])
    assert one_hot(["A" * 512]).shape == (1, 2048)
    assert one_hot([]).shape == (0, 0)


def test_kinds_side_by_side_keep_their_order_and_the_norm() -> None:
    wanted = FeatureSettings(kind="one-hot, kmer", k=2)
    assert feature_kind("dna", wanted) == "one-hot,kmer"
    found = raw_features(ROWS, "dna", wanted, refuse)
    parts = [one_hot(ROWS), kmer_frequencies(ROWS, 2)]
    np.testing.assert_allclose(found, np.hstack(parts) / np.sqrt(2), rtol=1e-6)
    assert (np.linalg.norm(found, axis=1) <= 1 + 1e-6).all()
    assert block_columns("one-hot,kmer", wanted, 6, 34) == (24, 10)
    assert block_columns("kmer,embedding", wanted, 0, 394) == (10, 384)


@pytest.mark.parametrize(
    ("kinds", "length", "columns"),
    [("one-hot", 6, 28), ("kmer", 6, 11), ("kmer,one-hot", 6, 33), ("kmer,embedding", 0, 10)],
)
def test_numbers_of_features_that_a_kind_does_not_have(
    kinds: str, length: int, columns: int
) -> None:
    with pytest.raises(ValueError, match=f"moments of {columns} features instead of"):
        block_columns(kinds, FeatureSettings(k=2), length, columns)


def test_every_kind_declares_what_it_makes() -> None:
    assert kind_names() == ("embedding", "kmer", "one-hot")
    settings = FeatureSettings(k=3)
    for name in kind_names():
        kind = kind_of(name)
        made = kind.make(ROWS, settings, embed)
        assert made.shape == (2, kind.columns(settings, 6) or 7)
        assert made.dtype == np.float32
        assert set(kind.rows) <= {"text", "dna"}


@pytest.mark.parametrize(
    ("kind", "given_words", "expected"),
    [
        ("dna", "", ("kmer:4", "kmer:3", "kmer:5", "one-hot")),
        ("dna", "features.k=6", ("kmer", "one-hot")),
        ("dna", "features.kind=kmer", ("kmer:4", "kmer:3", "kmer:5")),
        ("text", "", ("embedding",)),
        ("dna", "features.kind=one-hot", ("one-hot",)),
        (
            "dna",
            "features.kind=one-hot,kmer",
            ("one-hot,kmer:4", "one-hot,kmer:3", "one-hot,kmer:5"),
        ),
        ("dna", "features.candidates=one-hot", ("one-hot",)),
        # Those that take any lengths come first: every site can make them.
        (
            "dna",
            "features.candidates=one-hot,embedding,kmer features.k=4",
            ("embedding", "kmer", "one-hot"),
        ),
        ("dna", "llm.federated=ffa features.encoder=shared", ("embedding",)),
        ("dna", "privacy.moment_noise=1", ("kmer:4",)),
        ("dna", "privacy.dp=local", ("kmer:4",)),
    ],
)
def test_what_auto_chooses_from(
    kind: Literal["text", "dna"], given_words: str, expected: tuple[str, ...]
) -> None:
    assert candidate_kinds(kind, parse_run([], given_words.split())[0]) == expected


def test_lengths_are_agreed_on_by_everybody() -> None:
    assert common_length(["ACG", "TTT"]) == 3
    assert common_length(["ACG", "TT"]) == common_length([]) == 0
    check_lengths("one-hot", {"client 0": 60, "the server": 60})
    message = r"different lengths with one-hot features \(client 0: 60, client 1: several letters\)"
    with pytest.raises(DataError, match=message):
        check_lengths("one-hot", {"client 0": 60, "client 1": 0})
    with pytest.raises(DataError, match=r"client 0: 60, the server: 61 letters"):
        check_lengths("one-hot", {"client 0": 60, "the server": 61})


def test_what_auto_tries() -> None:
    two = parse_run([], ["run.clients=2"])[0]
    few, many = parse_run([], ["run.clients=256"])[0], parse_run([], ["run.clients=257"])[0]
    assert unfit("kmer:4", two, 0, 136) == unfit("one-hot", two, 256, 1024) == ""
    assert unfit("one-hot", few, 0, 5000) == "takes sequences of one length"
    assert "up to 256 letters, and the sequences have 257" in unfit("one-hot", few, 257, 5000)
    # Sums of fewer rows than features would say too much of each.
    assert unfit("one-hot", two, 256, 1023) == "is tried with 1,024 training rows at every site"
    assert unfit("kmer:5", few, 0, 511) == "is tried with 512 training rows at every site"
    both = unfit("kmer:5,one-hot", few, 60, 751)
    assert both == "is tried with 752 training rows at every site"
    # 512 x 512 x 8 bytes of each client are half a gigabyte of 256.
    assert unfit("kmer:5", few, 0, 512) == ""
    assert unfit("kmer:5", many, 0, 512) == "is tried with up to 256 clients"


def test_the_chosen_length_of_k_mers_travels_in_the_name_of_the_features() -> None:
    settings = parse_run([], [])[0].features
    chosen = with_kind(settings, "kmer:5,one-hot")
    assert (chosen.kind, chosen.k) == ("kmer,one-hot", 5)
    assert with_kind(settings, "one-hot").k == "auto"
    assert with_kind(settings, "") is settings
    rows = ["ACGTAAC", "TTTTTCA"]
    made = raw_features(rows, "dna", chosen, refuse)
    assert made.shape == (2, 512 + 28)
    assert block_columns("kmer:5,one-hot", settings, 7, 540) == (512, 28)
    np.testing.assert_array_equal(
        raw_features(rows, "dna", with_kind(settings, "kmer:3"), refuse), kmer_frequencies(rows, 3)
    )
    np.testing.assert_array_equal(
        raw_features(rows, "dna", settings, refuse), kmer_frequencies(rows, 4)
    )
