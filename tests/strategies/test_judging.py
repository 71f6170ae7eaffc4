"""Credit of every aggregation rule against a loop in numpy; what a round may lose."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import FLOWER_LOGGER

from core import Cost, Settings, parse_run
from core.flower_compat import set_task_identity
from core.messages import ARRAYS, METRICS, WEIGHT_KEY, unpack_parameters
from strategies.agents import Decision
from strategies.aggregation import UNIFORM_KEY, aggregate
from strategies.update_selection import MOST_LOST, may_lose, worth
from strategies.update_validation import Round, Update
from tests.strategies.test_state import begin, trained

RULES = ("weighted", "uniform", "median", "trimmed-mean")
VALUES = np.array([[1.0, -2.0], [2.0, 0.5], [4.0, 7.0], [100.0, -50.0]])
ROWS = np.array([10, 20, 30, 40])


def settings_of(*given: str) -> Settings:
    """Settings that leave the outlier where it is: what moves it is tested in test_robust."""
    return parse_run([], ["aggregation.clip_radius=1e6", *given])[0]


def reply(value: Any, rows: int) -> Message:
    set_task_identity()
    metrics = MetricRecord({WEIGHT_KEY: rows, UNIFORM_KEY: 1})
    arrays = ArrayRecord({"angles": Array(np.array(value))})
    order = Message(RecordDict(), 1, "train")
    return Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=order)


def replies() -> list[Message]:
    return [reply(value, int(rows)) for value, rows in zip(VALUES, ROWS, strict=True)]


def twin(rule: str, clients: list[int]) -> Any:
    """Aggregate as the rule says, in plain numpy."""
    values, rows = VALUES[clients], ROWS[clients]
    if rule == "weighted":
        return rows @ values / rows.sum()
    if rule == "uniform":
        return values.mean(axis=0)
    if rule == "median":
        return np.median(values, axis=0)
    cut = 1 if len(clients) >= 3 else 0
    return np.sort(values, axis=0)[cut : len(clients) - cut].mean(axis=0)


def score(arrays: ArrayRecord) -> float:
    return float((unpack_parameters(arrays)["angles"] ** 2).sum())


@pytest.mark.parametrize("rule", RULES)
def test_aggregating_leaves_the_replies_as_they_were(rule: str) -> None:
    settings, given = settings_of(f"aggregation.rule={rule}"), replies()
    for _ in range(2):
        arrays, _ = aggregate(settings, 1, given)
        assert arrays is not None
        found = unpack_parameters(arrays)["angles"]
        np.testing.assert_allclose(found, twin(rule, [0, 1, 2, 3]), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_credit_is_what_leaving_one_out_in_numpy_gives(rule: str) -> None:
    settings, given, state = settings_of(f"aggregation.rule={rule}"), replies(), begin()
    state.start_loss = 3.0
    now = Round(1, Decision(participants=(0, 1, 2, 3), steps={}))
    aggregate(settings, 1, given)
    now.counted = [Update(k, one, trained(0.5, 0.5), Cost()) for k, one in enumerate(given)]
    after = float((twin(rule, [0, 1, 2, 3]) ** 2).sum())
    found = worth(now, settings, state, score, after)
    assert sorted(found) == [0, 1, 2, 3]
    for client, one in found.items():
        without = (twin(rule, [k for k in range(4) if k != client]) ** 2).sum()
        assert one.credit == pytest.approx(without - after, rel=1e-5)
        assert one.gain == pytest.approx(3.0 - (VALUES[client] ** 2).sum(), rel=1e-5)


def test_flower_is_silent_about_leaving_one_out_only() -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    FLOWER_LOGGER.addHandler(handler)
    try:
        aggregate(settings_of(), 1, replies())
        assert said == ["aggregate_train: Received 4 results and 0 failures"]
        now = Round(1, Decision(participants=(0, 1), steps={}))
        now.counted = [
            Update(k, one, trained(0.5, 0.5), Cost()) for k, one in enumerate(replies()[:2])
        ]
        worth(now, settings_of(), begin(), score, 1.0)
        assert len(said) == 1
        aggregate(settings_of(), 2, replies())
        assert len(said) == 2
    finally:
        FLOWER_LOGGER.removeHandler(handler)


def test_a_round_is_lost_and_not_the_run_while_others_can_be_asked() -> None:
    state, settings = begin(), settings_of("run.rounds=3")
    alone = Round(1, Decision(participants=(0,), steps={0: 1}))
    assert may_lose(alone, state, settings)
    assert not may_lose(Round(1, Decision(participants=(0, 1), steps={})), state, settings)
    last = Round(3, Decision(participants=(0,), steps={0: 1}))
    assert not may_lose(last, state, settings)  # there would be no model at all
    state.losses.append(0.5)
    assert may_lose(last, state, settings)
    state.lost = MOST_LOST
    assert not may_lose(alone, state, settings)


def test_who_failed_in_a_lost_round_sits_the_next_one_out() -> None:
    federated = settings_of("evaluation.mode=federated", "data.server_rows=0", "stop.circuits=1000")
    state = begin()
    whole = state.observe(1, federated)
    state.lose_round({0}, quorum=1)
    seen = state.observe(2, federated)
    assert [view.client for view in seen.clients] == [1]
    assert seen.clients[0].rounds_since == 1
    assert seen.plain_spend == whole.plain_spend
    assert (whole.circuits_left, seen.circuits_left) == (1000, 995)  # it evaluates nevertheless
    state.lose_round({0, 1}, quorum=1)  # somebody has to be asked
    assert [view.client for view in state.observe(3, federated).clients] == [0, 1]
    assert state.lost == 2
    state.finish_round([0, 1], 0.5, 0.5)
    assert (state.lost, state.resting) == (0, frozenset())
