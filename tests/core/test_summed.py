"""The vector that is summed, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.summed import length, longer_than, mean_of, summand

REFERENCE = {"b": np.array([[1.0, 2.0]]), "a": np.array([0.5], np.float32)}


def test_a_summand_is_weight_times_update_and_the_weight() -> None:
    trained = {"a": np.array([1.5], np.float32), "b": np.array([[1.0, 4.0]])}
    assert summand(trained, REFERENCE, 2.0).tolist() == [2.0, 0.0, 4.0, 2.0]
    assert length(REFERENCE) == 4


def test_the_mean_of_one_is_its_model_and_keeps_shapes_and_types() -> None:
    trained = {"a": np.array([1.5], np.float32), "b": np.array([[1.0, 4.0]])}
    found = mean_of(summand(trained, REFERENCE, 0.3), REFERENCE)
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        "a": ((1,), np.dtype(np.float32)),
        "b": ((1, 2), np.dtype(np.float64)),
    }
    assert np.allclose(found["b"], trained["b"], atol=1e-15)


@given(st.lists(st.tuples(st.floats(0.1, 3), st.floats(-5, 5)), min_size=3, max_size=9))
def test_a_sum_gives_the_weighted_mean(sites: list[tuple[float, float]]) -> None:
    reference = {"a": np.zeros(2)}
    total = sum(summand({"a": np.array([x, -x])}, reference, w) for w, x in sites)
    mean = sum(w * x for w, x in sites) / sum(w for w, _ in sites)
    found = mean_of(np.asarray(total), reference)["a"]
    assert found == pytest.approx([mean, -mean], abs=1e-12)


@given(st.lists(st.tuples(st.floats(0.1, 3), st.floats(0, 7)), min_size=3, max_size=9))
def test_no_sum_of_short_updates_is_too_long(sites: list[tuple[float, float]]) -> None:
    reference = {"a": np.zeros(2)}
    drawn = [(w, 2 * np.array([np.cos(angle), np.sin(angle)])) for w, angle in sites]
    total = np.asarray(sum(summand({"a": part}, reference, w) for w, part in drawn))
    assert longer_than(total, 2.0) == 0


def test_a_sum_that_is_too_long_is_found() -> None:
    total = np.array([6.0, 8.0, 4.0])  # of length 10, of weights that add up to 4
    assert longer_than(total, 2.5) == 0
    assert longer_than(total, 2.0) == pytest.approx(0.25, rel=1e-3)
