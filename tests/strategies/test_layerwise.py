"""Models of unequal depth: closed forms, a loop over coordinates, and what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import parse_run
from core.messages import pack_parameters
from strategies.aggregators import build_aggregator
from strategies.layerwise import by_coverage, filled, shapes_of, widened
from strategies.updates import clip_to_centre, update_norm
from tests.strategies.test_aggregation import contributions

RULES = ("weighted", "uniform", "median", "trimmed-mean")
GLOBAL = {"angles": np.array([0.0, 0.0, 5.0, 6.0]), "bias": np.array([1.0])}


def made(rule: str) -> Any:
    return build_aggregator(parse_run([], [f"aggregation.rule={rule}"])[0]).made


def update(angles: list[float], bias: float = 0.0) -> dict[str, np.ndarray]:
    return widened({"angles": np.array(angles, float), "bias": np.array([bias], float)}, GLOBAL)


def test_the_second_layer_is_the_mean_of_the_deep_sites() -> None:
    updates = [update([1, 2, 10, 20], 3), update([4, 5], 9), update([7, 8, 40, 50], 6)]
    found = by_coverage(made("weighted"), updates, np.array([1.0, 2.0, 3.0]), GLOBAL)
    np.testing.assert_allclose(found["angles"], [30 / 6, 36 / 6, 130 / 4, 170 / 4])
    np.testing.assert_allclose(found["bias"], [39 / 6])


def test_layers_that_nobody_trained_stay() -> None:
    found = by_coverage(made("weighted"), [update([1, 2]), update([3, 4])], np.ones(2), GLOBAL)
    np.testing.assert_allclose(found["angles"], [2, 3, 5, 6])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from(RULES))
def test_each_coordinate_is_the_rules_of_those_that_have_it(
    seed: int, count: int, rule: str
) -> None:
    """Second method: the rule called for one coordinate after the other."""
    rng = np.random.default_rng(seed)
    reference = {"angles": rng.normal(size=6)}
    updates = [
        widened({"angles": rng.normal(size=depth)}, reference)
        for depth in rng.choice([2, 4, 6], count)
    ]
    weights = rng.uniform(0.1, 5, count)
    found = by_coverage(made(rule), updates, weights, reference)["angles"]
    for place in range(6):
        have = [k for k, one in enumerate(updates) if not np.isnan(one["angles"][place])]
        wanted = reference["angles"][place]
        if have:
            each = [{"angles": updates[k]["angles"][place : place + 1]} for k in have]
            wanted = made(rule)(each, weights[have], {})["angles"][0]
        assert found[place] == pytest.approx(wanted)


@pytest.mark.parametrize("rule", RULES)
def test_of_equal_depth_the_digits_are_those_of_the_rule(rule: str) -> None:
    aggregator = build_aggregator(parse_run([], [f"aggregation.rule={rule}"])[0])
    parts = contributions()
    direct = aggregator.made([dict(one.arrays) for one in parts], np.array([10, 20, 30, 40.0]), {})
    found = aggregator.aggregate(1, parts, {"angles": np.zeros(2)})
    np.testing.assert_array_equal(found["angles"], direct["angles"])


def test_an_update_of_fewer_layers_is_widened_and_filled() -> None:
    wide = update([1, 2])
    np.testing.assert_array_equal(np.isnan(wide["angles"]), [False, False, True, True])
    np.testing.assert_array_equal(filled(wide, GLOBAL)["angles"], [1, 2, 5, 6])
    assert update_norm(wide, GLOBAL) == pytest.approx(np.sqrt(5 + 1))
    deep = update([1, 2, 3, 4])
    assert filled(deep, GLOBAL) == deep


def test_what_is_missing_neither_moves_the_centre_nor_an_update() -> None:
    """A deep site among shallow ones is compared with the deep ones in the second layer."""
    values = [[0, 0], [1, 1], [0, 1], [1, 0, 50, 50], [0, 0, 51, 50], [1, 1, 50, 51]]
    updates = [update([float(v) for v in one]) for one in values]
    moved, shares = clip_to_centre(updates, 2.0, 1e-3)
    assert shares == [1.0] * 6
    for before, after in zip(updates, moved, strict=True):
        np.testing.assert_array_equal(before["angles"], after["angles"])
    far = [*updates, update([300.0, 0.0])]
    moved, shares = clip_to_centre(far, 2.0, 1e-3)
    assert shares[-1] < 0.1
    assert np.isnan(moved[-1]["angles"][2:]).all()
    assert moved[-1]["angles"][0] < 10


def test_a_deep_site_far_from_the_other_deep_ones_is_moved_to_these() -> None:
    """The centre of the second layer is the deep sites' median; what is moved stays a number."""
    far = [0.0, 1.0, 900.0, 900.0]
    values = [[0, 0], [1, 1], [0, 1], [1, 0, 50, 50], [0, 0, 51, 50], [1, 1, 50, 51]]
    updates = [update([float(v) for v in one]) for one in values] + [update(far)]
    moved, shares = clip_to_centre(updates, 2.0, 1e-3)
    assert shares[:3] == [1.0] * 3
    assert shares[-1] < 0.1
    assert np.abs(moved[-1]["angles"] - [0.5, 0.5, 50.5, 50.5]).max() < 60


@pytest.mark.parametrize(
    ("sent", "depths", "wanted"),
    [
        (4, (), 4),  # a run of equal depths takes no other
        (2, (), 4),
        (2, (2, 4), 2),
        (3, (2, 4), 4),  # no circuit of the run has three angles
        (5, (2, 4), 4),
    ],
)
def test_an_update_has_the_angles_of_a_depth_of_the_run(
    sent: int, depths: tuple[int, ...], wanted: int
) -> None:
    record = pack_parameters({"angles": np.zeros(sent), "bias": np.zeros(1)})
    assert shapes_of(record, GLOBAL, depths) == {"angles": (wanted,), "bias": (1,)}


def test_a_table_of_angles_is_of_no_depth() -> None:
    record = pack_parameters({"angles": np.zeros((2, 1)), "bias": np.zeros(1)})
    assert shapes_of(record, GLOBAL, (2, 4))["angles"] == (4,)
