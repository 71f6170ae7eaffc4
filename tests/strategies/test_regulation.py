from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import closest, distances, loss_ratio, next_steps
from strategies.regulation import rate_left, rounds_without_gain, steps_that_pay

RULES = ("fixed", "adaptive", "incremental", "dynamic", "logarithmic", "hybrid")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("fixed", 10),
        ("adaptive", 15),  # int(10 * 1.5)
        ("incremental", 15),  # 10 + int(10 * 0.5)
        ("dynamic", 12),  # int(5 + 7.5)
        ("logarithmic", 19),  # 10 + int(ln 2.5 * 10) = 10 + int(9.16)
        ("hybrid", 14),  # 10 + min(15, 4)
    ],
)
def test_the_papers_rules_by_hand(rule: str, expected: int) -> None:
    assert next_steps(rule, 10, 1.5, max_steps=100, max_increment=4) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_acts_once_the_quantum_model_has_caught_up(rule: str) -> None:
    for ratio in (0.2, 1.0, math.nan):
        assert next_steps(rule, 10, ratio, max_steps=100) == 10  # type: ignore[arg-type]


@given(
    st.sampled_from(RULES),
    st.integers(1, 1000),
    st.floats(0, math.inf, allow_nan=False),
    st.integers(1, 1000),
)
def test_never_above_the_cap_and_never_shrinking_below_it(
    rule: str, steps: int, ratio: float, cap: int
) -> None:
    found = next_steps(rule, steps, ratio, max_steps=cap)  # type: ignore[arg-type]
    assert min(steps, cap) <= found <= cap


def test_ratio_compares_like_with_like() -> None:
    assert loss_ratio(0.6, 0.3) == pytest.approx(2.0)
    assert loss_ratio(0.6, 0.0) == math.inf
    assert loss_ratio(0.0, 0.0) == 1.0


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
def test_the_selected_are_no_farther_than_the_others(by: dict[int, float], fraction: float) -> None:
    kept = closest(by, fraction)
    assert 1 <= len(kept) <= len(by)
    assert list(kept) == sorted(set(kept))
    rest = [gap for k, gap in by.items() if k not in kept]
    assert not rest or max(by[k] for k in kept) <= min(rest)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((), 10),
        ((1.0, 0.9), 10),  # nothing to compare a first gain with
        ((1.0, 0.9, 0.85), 10),  # 0.005 a step after 0.01
        ((1.0, 0.95, 0.8), 15),  # 0.015 a step after 0.005
        ((1.0, 0.95, 0.8, 0.6), 10),  # then 0.0133 a step
        ((1.0, 0.95, 0.8, 0.5), 23),  # or 0.02
        ((1.0, 0.95, 0.8, 0.5, 0.0), 30),  # 0.0217 a step: as many as there may be
        ((1.0, 1.1, 1.05), 15),  # a gain after a loss
        ((1.0, 1.1, 1.15), 10),  # losing less is no gain
    ],
)
def test_steps_grow_only_while_each_pays_more(losses: tuple[float, ...], expected: int) -> None:
    assert steps_that_pay(10, losses, max_steps=30) == expected


@given(st.integers(1, 50), st.integers(1, 50), st.lists(st.floats(0, 28), max_size=12))
def test_steps_that_pay_stay_within_their_bounds(base: int, most: int, losses: list[float]) -> None:
    assert min(base, most) <= steps_that_pay(base, losses, max_steps=most) <= most


def test_the_rate_is_halved_where_the_loss_stops_falling() -> None:
    assert rate_left([], 1) == rate_left([0.5, 0.4, 0.3], 1) == 1
    assert rate_left([0.5, 0.5], 1) == 0.5
    assert rate_left([0.5, 0.6, 0.55, 0.4, 0.45], 1) == 0.125  # each round not below the lowest
    assert rate_left([0.5, 0.6, 0.55, 0.4, 0.45], 2) == 0.5
    assert rate_left([0.5, *[0.6] * 6], 2) == 0.125
    assert rate_left([0.5, 0.4995, 0.499, 0.4985], 1) == 1
    assert rate_left([0.5, 0.4995, 0.499, 0.4985], 1, 0.001) == 0.25  # the third time it is enough


def test_small_gains_in_a_row_add_up() -> None:
    falling = [0.5, 0.4995, 0.499, 0.4985, 0.498]
    assert rounds_without_gain(falling, 0.0) == [0, 0, 0, 0, 0]
    assert rounds_without_gain(falling, 0.0012) == [0, 1, 2, 0, 1]
    assert rounds_without_gain([0.5, 0.6, 0.49, 0.495], 0.002) == [0, 1, 0, 1]
    assert rounds_without_gain([], 0.002) == []
