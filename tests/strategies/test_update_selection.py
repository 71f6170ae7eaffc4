"""What each update was worth, and what a round may lose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from core import Cost
from core.messages import pack_parameters, unpack_parameters
from strategies.aggregators import build_aggregator
from strategies.decisions import Decision
from strategies.update_selection import MOST_LOST, may_lose, model_credits
from strategies.update_validation import Round, Update
from tests.strategies.test_aggregation import RULES, VALUES, by_numpy, contributions, settings_of
from tests.strategies.test_state import begin


def loss_of(arrays: ArrayRecord) -> float:
    return float((unpack_parameters(arrays)["angles"] ** 2).sum())


def aggregated(clients: int) -> Round:
    now = Round(1, Decision(participants=tuple(range(clients)), steps={}))
    parts: list[Any] = contributions()[:clients]
    now.count([Update(k, p.arrays, p.report, Cost()) for k, p in enumerate(parts)], [1.0] * clients)
    return now


@pytest.mark.parametrize("rule", RULES)
def test_credit_is_what_leaving_one_out_in_numpy_gives(rule: str) -> None:
    settings, state = settings_of(f"aggregation.rule={rule}"), begin()
    state.weights = {0: 10, 1: 20, 2: 30, 3: 40}
    reference, whole = {"angles": np.array([1.0, 1.5])}, by_numpy(rule)  # the loss before: 3.25
    after, model = float((whole**2).sum()), pack_parameters({"angles": whole})
    found = model_credits(
        aggregated(4), settings, state, loss_of, model, build_aggregator(settings), reference
    )
    assert sorted(found) == [0, 1, 2, 3]
    for client, one in found.items():
        without = (by_numpy(rule, [k for k in range(4) if k != client]) ** 2).sum()
        assert one.credit == pytest.approx(without - after, rel=1e-5)
        assert one.gain == pytest.approx(3.25 - (VALUES[client] ** 2).sum(), rel=1e-5)


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
