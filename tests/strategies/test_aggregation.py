"""Aggregation: each rule against a loop in numpy; checks by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from core import parse_run
from core.flower_compat import set_task_identity
from core.messages import ARRAYS, METRICS, WEIGHT_KEY, unpack_parameters
from strategies import aggregation
from strategies.aggregation import UNIFORM_KEY, build_aggregator, check_update, update_norm

VALUES = ([1.0, -2.0], [2.0, 0.5], [4.0, 7.0], [100.0, -50.0])
ROWS = (10, 20, 30, 40)


def aggregate(rule: str, values: Any = VALUES, rows: Any = ROWS, *more: str) -> Any:
    set_task_identity()
    settings, _ = parse_run([], [f"aggregation.rule={rule}", *more])
    replies = []
    for value, weight in zip(values, rows, strict=True):
        order = Message(RecordDict(), 1, "train")
        metrics = MetricRecord({WEIGHT_KEY: weight, UNIFORM_KEY: 1})
        arrays = ArrayRecord({"angles": Array(np.array(value, np.float32))})
        replies.append(Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=order))
    arrays, _metrics = build_aggregator(settings, len(replies)).aggregate_train(1, replies)
    assert arrays is not None
    return unpack_parameters(arrays)["angles"]


def test_weighted_is_the_mean_by_rows() -> None:
    by_hand = [
        sum(n * v[i] for n, v in zip(ROWS, VALUES, strict=True)) / sum(ROWS) for i in range(2)
    ]
    np.testing.assert_allclose(aggregate("weighted"), by_hand, rtol=1e-6)


def test_uniform_is_the_plain_mean() -> None:
    np.testing.assert_allclose(aggregate("uniform"), np.mean(VALUES, axis=0), rtol=1e-6)


def test_median_forgets_the_outlier() -> None:
    np.testing.assert_allclose(aggregate("median"), [3.0, -0.75], rtol=1e-6)


@pytest.mark.parametrize(("count", "trimmed"), [(3, 1), (4, 1), (5, 1), (10, 2), (49, 9)])
def test_trimmed_mean_drops_at_least_one_from_each_end(count: int, trimmed: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 2)) ** 3
    kept = np.sort(values, axis=0)[trimmed : count - trimmed]
    np.testing.assert_allclose(
        aggregate("trimmed-mean", values, [1] * count), kept.mean(axis=0), rtol=1e-4
    )


def test_trimmed_mean_of_two_is_their_mean() -> None:
    np.testing.assert_allclose(aggregate("trimmed-mean", VALUES[:2], (1, 1)), [1.5, -0.75])


def test_norm_by_hand() -> None:
    one = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    zero = {"a": np.zeros(2), "b": np.zeros((1, 1))}
    assert update_norm(one, zero) == pytest.approx(5.0)
    assert check_update(one, zero, 5.0) == ""
    assert "norm 5 of the update is above 4.9" in check_update(one, zero, 4.9)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({}, r"arrays \[\] instead of \['a'\]"),
        ({"a": np.zeros(2), "x": np.zeros(1)}, "instead of"),
        ({"a": np.zeros(3)}, r"shape \(3,\) instead of \(2,\)"),
        ({"a": np.zeros(2, int)}, "dtype int64"),
        ({"a": np.array([0.0, np.inf])}, "not finite"),
    ],
)
def test_what_is_wrong_is_said(update: Any, message: str) -> None:
    import re

    assert re.search(message, check_update(update, {"a": np.zeros(2)}, 10.0))


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
        aggregation.aggregate(settings, 1, [])
