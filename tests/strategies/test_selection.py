from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import closest, distances

gaps = st.dictionaries(st.integers(0, 50), st.floats(0, 1e6, allow_nan=False), min_size=1)


def test_distance_by_hand() -> None:
    assert distances({0: 1.0, 1: 0.25}, 0.5) == {0: 0.5, 1: 0.25}


def test_ten_percent_of_ten_is_one_and_of_eleven_two() -> None:
    assert closest({k: float(k) for k in range(10)}, 0.1) == (0,)
    assert closest({k: float(k) for k in range(11)}, 0.1) == (0, 1)
    assert len(closest({k: float(k) for k in range(10)}, 0.7)) == 7


def test_ties_go_to_the_lower_index_and_the_unknown_come_last() -> None:
    assert closest({3: 0.1, 1: 0.1, 2: 0.0}, 0.5) == (1, 2)
    assert closest({0: math.nan, 1: 9.0}, 0.5) == (1,)


def test_nobody_to_select() -> None:
    with pytest.raises(ValueError, match="no client"):
        closest({}, 0.5)


@given(gaps, st.floats(0.01, 1))
def test_the_kept_are_no_farther_than_the_others(by: dict[int, float], fraction: float) -> None:
    kept = closest(by, fraction)
    assert 1 <= len(kept) <= len(by)
    assert list(kept) == sorted(set(kept))
    rest = [gap for k, gap in by.items() if k not in kept]
    assert not rest or max(by[k] for k in kept) <= min(rest)
