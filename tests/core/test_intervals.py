"""Intervals of accuracies, against SciPy's and against their own meaning; per cent in words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import describe_circuits, difference_interval, is_simulated, percent, wilson_interval

ROWS = st.integers(1, 5000)


@settings(max_examples=50, deadline=None)
@given(ROWS.flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_wilson_is_scipys(counted: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    rows, hits = counted
    wanted = binomtest(hits, rows).proportion_ci(method="wilson")
    found = wilson_interval(hits / rows, rows)
    assert found == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found is not None
    assert found[0] <= hits / rows <= found[1]


def test_newcombes_interval_follows_from_wilsons() -> None:
    # By hand from the Wilson limits of 40/50 and 30/50: (0.6696, 0.8876) and (0.4618, 0.7239).
    found = difference_interval(0.8, 0.6, 50)
    assert found == pytest.approx((0.0201, 0.3637), abs=1e-3)


def test_one_point_on_a_hundred_rows_is_nothing() -> None:
    low, high = difference_interval(0.81, 0.80, 100) or (0.0, 0.0)
    assert low < 0 < high


@pytest.mark.parametrize("rows", [None, 0, "100", True])
def test_without_rows_there_is_no_interval(rows: object) -> None:
    assert wilson_interval(0.5, rows) is None
    assert difference_interval(0.5, 0.4, rows) is None


@pytest.mark.parametrize(
    ("share", "places", "said"),
    [
        (498 / 500, 1, "99.6 %"),
        (498 / 500, 0, "> 99 %"),
        (0.99996, 1, "> 99.9 %"),
        (0.0002, 1, "< 0.1 %"),
        (1, 1, "100.0 %"),
        (0, 0, "0 %"),
        (None, 1, "-"),
    ],
)
def test_all_and_nothing_are_said_only_where_they_are_exact(
    share: float | None, places: int, said: str
) -> None:
    assert percent(share, places) == said


@pytest.mark.parametrize(
    ("backend", "simulated"),
    [
        ("exact", True),
        ("aer:brisbane", True),
        ("fake:fake_manila", True),
        ("pennylane:lightning.qubit", True),
        ("ibm:least_busy", False),
        ("pennylane:ionq.qpu", False),
    ],
)
def test_hardware_is_told_from_simulators(backend: str, simulated: bool) -> None:
    assert is_simulated(backend) is simulated


def test_a_record_that_does_not_know_says_neither() -> None:
    assert describe_circuits(1200, None) == "1,200 circuits"
