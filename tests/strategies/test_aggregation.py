"""Aggregation: each rule against a loop in numpy; what bounds one update's influence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import Settings, parse_run
from core.flower_compat import set_task_identity
from core.messages import unpack_parameters
from strategies import aggregation
from strategies.aggregators import Contribution, build_aggregator
from strategies.updates import clip_to_centre, longest_norms, update_norm
from tests.strategies.test_state import trained

RULES = ("weighted", "uniform", "median", "trimmed-mean")
VALUES = np.array([[1.0, -2.0], [2.0, 0.5], [4.0, 7.0], [100.0, -50.0]])
ROWS = np.array([10, 20, 30, 40])


def settings_of(*given: str) -> Settings:
    """Settings that leave the outlier where it is: what moves it is tested below."""
    return parse_run([], ["aggregation.clip_radius=1e6", *given])[0]


def contributions(values: Any = VALUES, rows: Any = ROWS) -> list[Contribution]:
    set_task_identity()
    pairs = zip(values, rows, strict=True)
    return [
        Contribution({"angles": np.array(v, np.float64)}, int(n), trained(0.5, 0.5))
        for v, n in pairs
    ]


def aggregate(rule: str, values: Any = VALUES, rows: Any = ROWS) -> Any:
    settings = settings_of(f"aggregation.rule={rule}")
    parts = contributions(values, rows)
    found = aggregation.aggregate(settings, 1, parts, build_aggregator(settings), {})
    return unpack_parameters(found.arrays)["angles"]


def by_numpy(rule: str, clients: Sequence[int] = (0, 1, 2, 3)) -> Any:
    """Aggregate as the rule says, in plain numpy."""
    values, rows = VALUES[list(clients)], ROWS[list(clients)]
    if rule == "weighted":
        return rows @ values / rows.sum()
    if rule == "uniform":
        return values.mean(axis=0)
    if rule == "median":
        return np.median(values, axis=0)
    cut = 1 if len(clients) >= 3 else 0
    return np.sort(values, axis=0)[cut : len(clients) - cut].mean(axis=0)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_what_numpy_gives_and_leaves_the_updates_as_they_were(rule: str) -> None:
    settings, parts = settings_of(f"aggregation.rule={rule}"), contributions()
    for _ in range(2):
        arrays = aggregation.aggregate(settings, 1, parts, build_aggregator(settings), {}).arrays
        np.testing.assert_allclose(unpack_parameters(arrays)["angles"], by_numpy(rule), rtol=1e-6)


@pytest.mark.parametrize(("count", "trimmed"), [(2, 0), (3, 1), (4, 1), (5, 1), (10, 2), (49, 9)])
def test_trimmed_mean_drops_at_least_one_from_each_end_of_three(count: int, trimmed: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 2)) ** 3
    inner = np.sort(values, axis=0)[trimmed : count - trimmed]
    np.testing.assert_allclose(
        aggregate("trimmed-mean", values, [1] * count), inner.mean(axis=0), rtol=1e-4
    )


def test_norm_by_hand() -> None:
    one = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    zero = {"a": np.zeros(2), "b": np.zeros((1, 1))}
    assert update_norm(one, zero) == pytest.approx(5.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.data())
def test_every_rule_stays_between_the_smallest_and_the_largest(
    values: list[float], data: st.DataObject
) -> None:
    rule = data.draw(st.sampled_from(["weighted", "uniform", "median", "trimmed-mean"]))
    found = aggregate(rule, [[v] for v in values], [1] * len(values))[0]
    assert min(values) - 1e-2 <= found <= max(values) + 1e-2


def test_central_privacy_gives_nothing_out_without_its_noise() -> None:
    settings, _ = parse_run([], ["privacy.dp=central", "aggregation.rule=uniform"])
    with pytest.raises(ValueError, match="without the round's global arrays"):
        aggregation.aggregate(settings, 1, contributions(), build_aggregator(settings), {})


# --- what bounds one update's influence ---

FEW = hypothesis.settings(max_examples=40)
ANY = st.floats(-1e30, 1e30, width=64)


def lines(*values: float) -> list[dict[str, Any]]:
    return [{"a": np.array([value], np.float64)} for value in values]


def places(updates: Any) -> list[float]:
    return [float(update["a"][0]) for update in updates]


def test_the_longest_norm_is_a_multiple_of_the_median() -> None:
    assert longest_norms([4, 1, 2, 100, 3], [10] * 5, 5.0) == [15.0] * 5


def test_a_client_that_was_given_more_steps_may_go_further_and_none_less_far() -> None:
    bounds = longest_norms([1, 1, 1, 1], [10, 10, 30, 1], 5.0)
    assert bounds == [5.0, 5.0, 15.0, 5.0]


def test_updates_that_did_not_move_do_not_count_towards_the_median() -> None:
    assert longest_norms([0, 0, 0, 1, 2], [10] * 5, 4.0) == [6.0] * 5
    assert longest_norms([0, 0], [10] * 2, 4.0) == [0.0] * 2


def test_one_liar_among_known_updates_moves_to_the_radius() -> None:
    # Centre 1; distances 2, 2, 0, 0 and 99, their median 2: twice that is 4 from the centre.
    moved, shares = clip_to_centre(lines(-1, -1, 1, 1, 100), 2.0, 0.1)
    assert places(moved) == [-1, -1, 1, 1, 5]
    assert shares == [1, 1, 1, 1, 4 / 99]


def test_the_distance_is_over_all_arrays_together() -> None:
    centre = {"a": np.zeros(1), "b": np.zeros((1, 1))}
    far = {"a": np.array([30.0]), "b": np.array([[40.0]])}
    moved, shares = clip_to_centre([centre, centre, far], 2.0, 5.0)
    assert shares[2] == pytest.approx(0.2)
    assert (float(moved[2]["a"][0]), float(moved[2]["b"][0, 0])) == pytest.approx((6.0, 8.0))


def test_where_most_are_equal_another_still_counts_for_the_least_distance() -> None:
    moved, _ = clip_to_centre(lines(1, 1, 1, 1, 50), 2.0, 0.25)
    assert places(moved) == [1, 1, 1, 1, 1.5]


def test_two_updates_are_left_alone() -> None:
    assert places(clip_to_centre(lines(-3, 80), 1.0, 0.1)[0]) == [-3, 80]


def test_dtypes_stay() -> None:
    moved, _ = clip_to_centre([{"a": np.ones(2, np.float32) * k} for k in (0, 0, 9)], 2.0, 0.1)
    assert {update["a"].dtype for update in moved} == {np.dtype("float32")}


@FEW
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.integers(3, 9), ANY)
def test_equal_updates_are_neither_dropped_nor_moved(
    value: list[float], honest: int, lie: float
) -> None:
    one = {"a": np.array(value)}
    everybody = [*[one] * honest, {"a": np.full(3, lie)}]
    _, shares = clip_to_centre(everybody, 2.0, 0.05)
    assert shares[:honest] == [1.0] * honest
    norm = float(np.linalg.norm(value))
    bounds = longest_norms([*[norm] * honest, abs(lie)], [20] * (honest + 1), 5.0)
    assert all(norm <= bound for bound in bounds[:honest])


@FEW
@given(st.lists(ANY, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_matter(values: list[float], random: Any) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    found = places(clip_to_centre(lines(*values), 2.0, 0.1)[0])
    other = places(clip_to_centre(lines(*(values[k] for k in order)), 2.0, 0.1)[0])
    assert other == pytest.approx([found[k] for k in order])


@FEW
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=7),
    st.lists(st.tuples(ANY, ANY), min_size=1, max_size=6),
    st.floats(1, 4),
)
def test_a_minority_of_any_magnitude_moves_the_mean_within_a_bound(
    honest: list[tuple[float, float]], liars: list[tuple[float, float]], radius: float
) -> None:
    """The centre stays in the honest updates' box, so most distances are within its diagonal."""
    liars = liars[: (len(honest) - 1) // 2 or 1]
    points = np.array([*honest, *liars])
    moved, _ = clip_to_centre([{"a": point} for point in points], radius, 0.05)
    mean = np.mean([update["a"] for update in moved], axis=0)
    box = np.ptp(honest, axis=0)
    reach = radius * max(float(np.linalg.norm(box)), 0.05)
    assert np.linalg.norm(mean - np.mean(honest, axis=0)) <= (reach + np.linalg.norm(box)) * 1.001
