from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import loss_ratio, next_steps

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
