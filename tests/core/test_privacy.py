"""Clipping, noise and the accountant, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import parse_run
from core.privacy import clipped, noise_seed, noised

ON = ("privacy.dp=central", "aggregation.rule=uniform")


def length(one: dict[str, Any], other: dict[str, Any]) -> float:
    return math.sqrt(sum(float(np.sum((one[k] - other[k]) ** 2)) for k in one))


@given(st.floats(0.01, 10), st.integers(0, 2**32 - 1))
def test_a_clipped_update_points_where_it_did_and_is_no_longer_than_allowed(
    bound: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reference = {"angles": rng.normal(size=5), "bias": rng.normal(size=2)}
    update = {k: v + rng.normal(size=v.shape) for k, v in reference.items()}
    found = clipped(update, reference, bound)
    whole = length(update, reference)
    assert length(found, reference) == pytest.approx(min(bound, whole))
    share = min(1.0, bound / whole)
    for name in update:
        expected = reference[name] + share * (update[name] - reference[name])
        np.testing.assert_allclose(found[name], expected, atol=1e-12)


def test_an_update_of_nothing_stays_and_types_are_kept() -> None:
    reference = {"angles": np.ones(3, np.float32)}
    found = clipped(reference, reference, 0.5)
    assert found["angles"].dtype == np.float32
    np.testing.assert_array_equal(found["angles"], reference["angles"])


def test_noise_has_the_requested_deviation() -> None:
    drawn = noised({"a": np.zeros(200_000)}, 0.3, seed=1)["a"]
    assert drawn.std() == pytest.approx(0.3, rel=0.01)
    assert drawn.mean() == pytest.approx(0.0, abs=0.003)


def test_noise_repeats_by_its_seed_alone_and_leaves_the_global_generator() -> None:
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    one, two, other = (noised({"a": np.zeros(9)}, 1.0, seed)["a"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)
    one, two = (noised({"a": np.zeros(9)}, 1.0, None)["a"] for _ in range(2))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index] # noqa: NPY002


def test_only_a_seeded_run_has_a_seed_of_its_noise() -> None:
    assert noise_seed(parse_run([], ON)[0], "aggregate", 1) is None
    seeded, _ = parse_run([], [*ON, "privacy.seeded=true"])
    assert noise_seed(seeded, "aggregate", 1) == noise_seed(seeded, "aggregate", 1)
    assert noise_seed(seeded, "aggregate", 1) != noise_seed(seeded, "aggregate", 2)
