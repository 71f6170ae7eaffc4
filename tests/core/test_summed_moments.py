"""Moments as a vector that is summed: the round trip, its length, and sums of several sites."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.summed_moments import moment_length, moment_vector, moments_of_sum, prefixes, scale_of
from data import merge_moments, moments_of

WIDTHS = {"": 2, "kmer:3.": 3}


def arrays(rng: np.random.Generator, rows: int, classes: int = 2) -> dict[str, np.ndarray]:
    labels = rng.integers(0, classes, rows)
    found: dict[str, np.ndarray] = {}
    for prefix, d in WIDTHS.items():
        made = moments_of(rng.normal(size=(rows, d)), labels, classes)
        found |= {f"{prefix}sums": made.sums, f"{prefix}second": made.second, "count": made.count}
    return found


def test_counts_then_by_kind_sums_and_the_upper_triangle() -> None:
    given = {
        "count": np.array([1.0, 2.0]),
        "sums": np.array([[3.0], [4.0]]),
        "second": np.array([[5.0]]),
        "b.sums": np.array([[6.0, 7.0], [8.0, 9.0]]),
        "b.second": np.array([[10.0, 11.0], [11.0, 12.0]]),
    }
    found = moment_vector(given, 0.5)
    assert (2 * found).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert moment_length(2, {"": 1, "b.": 2}) == 12
    assert prefixes(given) == ["", "b."]


@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 99))
def test_the_round_trip_is_exact(rows: int, classes: int, seed: int) -> None:
    sent = arrays(np.random.default_rng(seed), rows, classes)
    vector = moment_vector(sent, 1.0)
    assert len(vector) == moment_length(classes, WIDTHS)
    back = moments_of_sum(vector, classes, WIDTHS)
    assert {k: v.tolist() for k, v in back.items()} == {k: v.tolist() for k, v in sent.items()}


@given(st.lists(st.integers(1, 30), min_size=3, max_size=6), st.integers(0, 99))
def test_a_sum_of_weighted_means_is_the_sum_of_scaled_moments(rows: list[int], seed: int) -> None:
    """A site of n rows that counts for c of them: c times its means, as `Moments.scaled` has it."""
    from data import Moments

    rng = np.random.default_rng(seed)
    sent, counted = [arrays(rng, n) for n in rows], [min(n, 10) for n in rows]
    scale = scale_of(counted, 64.0)
    total = sum(
        moment_vector(one, scale * c / n) for one, c, n in zip(sent, counted, rows, strict=True)
    )
    found = moments_of_sum(np.asarray(total) / scale, 2, WIDTHS)
    for prefix in WIDTHS:
        parts = [
            Moments(one["count"], one[f"{prefix}sums"], one[f"{prefix}second"]) for one in sent
        ]
        pairs = zip(parts, counted, rows, strict=True)
        merged = merge_moments([part.scaled(c / n) for part, c, n in pairs])
        assert found["count"] == pytest.approx(merged.count, abs=1e-12)
        assert found[f"{prefix}sums"] == pytest.approx(merged.sums, abs=1e-12)
        assert found[f"{prefix}second"] == pytest.approx(merged.second, abs=1e-12)


@given(st.lists(st.integers(0, 10**9), min_size=1).filter(any), st.sampled_from([1.0, 4096.0]))
def test_the_scale_is_the_largest_power_of_two_that_fits(counted: list[int], most: float) -> None:
    scale = scale_of(counted, most)
    assert np.log2(scale) % 1 == 0
    assert scale * max(counted) <= most < 2 * scale * max(counted)
