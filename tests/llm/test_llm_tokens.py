"""The 3-mer tokenizer, tokenising and batching, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.batches import (
    FIRST,
    PAD,
    UNKNOWN,
    KmerTokenizer,
    Tokens,
    dna_words,
    drawn_rows,
    shuffled_batches,
    sorted_batches,
    tokenise,
)
from llm.training import linear_decay


def test_ids_of_known_words() -> None:
    ids = KmerTokenizer().encode("AAACGTTT")
    letters = [0, 0, 0, 1, 2, 3, 3, 3]
    expected = [
        FIRST + 16 * a + 4 * b + c
        for a, b, c in zip(letters[:-2], letters[1:-1], letters[2:], strict=True)
    ]
    np.testing.assert_array_equal(ids, expected)
    assert ids[0] == FIRST
    assert ids[-1] == FIRST + 63
    assert len(KmerTokenizer()) == 66


@settings(deadline=None, max_examples=50)
@given(st.text("ACGT", min_size=3, max_size=300), st.integers(1, 300))
def test_one_token_a_letter_but_two_and_a_cut(sequence: str, longest: int) -> None:
    tokenizer = KmerTokenizer()
    ids = tokenizer.encode(sequence)
    assert len(ids) == len(sequence) - 2
    assert ids.min() >= FIRST
    np.testing.assert_array_equal(tokenizer.encode(sequence, longest), ids[:longest])


@settings(deadline=None, max_examples=50)
@given(st.text("ACGTN", min_size=0, max_size=80))
def test_lower_case_is_upper_case_and_n_makes_its_words_unknown(sequence: str) -> None:
    tokenizer = KmerTokenizer()
    ids = tokenizer.encode(sequence)
    np.testing.assert_array_equal(tokenizer.encode(sequence.lower()), ids)
    words = [sequence[i : i + 3] for i in range(len(sequence) - 2)] or ["N"]
    np.testing.assert_array_equal(ids == UNKNOWN, ["N" in word for word in words])


def test_padding_is_on_the_right_and_masked() -> None:
    tokens = tokenise(["ACGTA", "ACG", "A"], KmerTokenizer(), 9, dna=True)
    batch = tokens.batch(range(3))
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1, 1], [1, 0, 0], [1, 0, 0]])
    assert (batch["input_ids"][1, 1:] == PAD).all()
    assert batch["input_ids"][2, 0] == UNKNOWN


def test_dna_for_a_text_model_is_overlapping_six_mers() -> None:
    assert dna_words("acgtacgt") == "ACGTAC CGTACG GTACGT"
    assert dna_words("acg") == "ACG"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=90), st.integers(1, 9))
def test_batches_hold_every_row_once(lengths: list[int], size: int) -> None:
    rows = np.array(lengths)
    by_length = sorted_batches(rows, size)
    shuffled = list(shuffled_batches(rows, size, np.random.default_rng(0)))
    for batches in (by_length, shuffled):
        np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(rows)))
        assert max(len(batch) for batch in batches) <= size
    ordered = rows[np.concatenate(by_length)]
    assert (np.diff(ordered) <= 0).all()


def test_shuffles_follow_their_generator() -> None:
    lengths = np.ones(40, dtype=np.int64)

    def order(seed: int) -> list[int]:
        batches = shuffled_batches(lengths, 4, np.random.default_rng(seed))
        return [row for batch in batches for row in batch]

    assert order(1) == order(1) != order(2)


def test_batch_pads_to_its_own_longest_row() -> None:
    tokens = Tokens((np.array([5, 6, 7]), np.array([8]), np.array([9, 9])), pad=4)
    batch = tokens.batch([1, 2])
    assert batch["input_ids"].tolist() == [[8, 4], [9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_learning_rate_rises_then_falls_to_almost_nothing() -> None:
    factors = [linear_decay(step, 100) for step in range(100)]
    assert factors[:6] == pytest.approx([step / 6 for step in range(1, 7)])
    assert max(factors) == factors[5] == 1.0
    assert np.diff(factors[5:]) == pytest.approx(-1 / 95)
    assert 0 < factors[-1] < 0.02
    assert linear_decay(0, 1) == 1.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 99))
def test_drawn_rows_keep_the_classes_shares(labels: list[int], most: int, seed: int) -> None:
    given = np.array(labels)
    drawn = drawn_rows(given, most, seed)
    assert len(drawn) == (min(most, len(given)) or len(given))
    assert (np.diff(drawn) > 0).all()
    share = np.bincount(given, minlength=4) * len(drawn) / len(given)
    assert (np.abs(np.bincount(given[drawn], minlength=4) - share) <= 1).all()
    np.testing.assert_array_equal(drawn, drawn_rows(given, most, seed))


@pytest.mark.parametrize(("longest", "cut"), [(1, 3), (2, 2), (3, 2), (4, 1), (9, 1), (10, 0)])
def test_rows_that_are_cut_are_counted(longest: int, cut: int) -> None:
    rows = ["ACG" + "T" * extra for extra in (0, 1, 3, 9)]  # 1, 2, 4 and 10 words
    assert tokenise(rows, KmerTokenizer(), longest, dna=True).cut == cut
