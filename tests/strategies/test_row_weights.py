"""Rows that a site counts for: a cap that like sites do not feel, by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.row_weights import counted_classes, counted_rows, dominance, dominant

ROWS = st.lists(st.integers(0, 10**9), min_size=1, max_size=12).map(lambda n: dict(enumerate(n)))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([100, 100, 100], [100, 100, 100]),
        ([100, 100, 300], [100, 100, 300]),  # three times the median: as it is
        ([20, 100, 100, 250, 30], [20, 100, 100, 250, 30]),
        ([100, 100, 10**7], [100, 100, 300]),
        ([100, 10**7], [100, 300]),  # of two the smaller one is the median
        ([0, 0, 50, 10**7], [0, 0, 50, 150]),  # who has none is no measure
        ([7], [7]),
        ([0, 0], [0, 0]),
    ],
)
def test_by_hand(rows: list[int], wanted: list[int]) -> None:
    assert list(counted_rows(dict(enumerate(rows)), 3.0).values()) == wanted


@settings(max_examples=100, deadline=None)
@given(ROWS, st.floats(1, 10))
def test_nobody_gains_and_nobody_passes_the_bound(rows: dict[int, int], most: float) -> None:
    counted = counted_rows(rows, most)
    held = [n for n in rows.values() if n]
    for client, count in counted.items():
        assert 0 <= count <= rows[client]
        assert (count > 0) == (rows[client] > 0)
        assert not held or count <= most * np.median(held)  # the lower median is at most that


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=3, max_size=11), st.integers(1, 10**12))
def test_a_minority_of_liars_cannot_move_the_bound_beyond_the_honest(
    honest: list[int], lie: int
) -> None:
    liars = (len(honest) - 1) // 2
    rows = dict(enumerate([*honest, *[lie] * liars]))
    counted = counted_rows(rows, 3.0)
    assert max(counted.values()) <= 3 * max(honest)


def test_shares_of_a_liar_among_equals_are_as_the_module_says() -> None:
    for sites, share in ((2, 3 / 4), (3, 3 / 5), (10, 1 / 4)):
        counted = counted_rows({k: 10**7 if k == 0 else 100 for k in range(sites)}, 3.0)
        assert counted[0] / sum(counted.values()) == pytest.approx(share)


def test_classes_are_scaled_with_their_site() -> None:
    rows = {0: [60, 40], 1: [50, 50], 2: [0, 10**7]}
    counted = counted_rows({k: sum(v) for k, v in rows.items()}, 3.0)
    assert counted_classes(rows, counted) == [110.0, 390.0]
    honest = {0: [6, 4], 1: [5, 5]}
    assert counted_classes(honest, {0: 10, 1: 10}) == [11, 9]


def test_who_dominates_is_said() -> None:
    rows = {0: 100, 1: 100, 2: 10**7}
    counted = counted_rows(rows, 3.0)
    assert dominant(rows, counted) == [2]
    assert dominance(rows, counted, "test") == [
        "client 2 declares 10,000,000 of 10,000,200 test rows; 300 of 500 count (60 %)"
    ]
    assert dominant({0: 60, 1: 20, 2: 25}, {0: 60, 1: 20, 2: 25}) == [0]  # more than half
    assert dominant({0: 50, 1: 50}, {0: 50, 1: 50}) == []
    assert dominant({0: 50, 1: 0}, {0: 50, 1: 0}) == []  # nobody to be without
