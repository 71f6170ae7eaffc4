"""What each update was worth, and what a round may lose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from core import Cost
from core.messages import pack_parameters, unpack_parameters
from strategies import FederationState
from strategies.aggregators import Contribution, build_aggregator
from strategies.decisions import ClientView, Decision
from strategies.group_credit import GroupRound, estimates
from strategies.grouping import Group
from strategies.update_selection import (
    MOST_LOST,
    PartEvaluator,
    may_lose,
    model_credits,
    record_groups,
)
from strategies.update_validation import Round, Update
from tests.strategies.test_aggregation import RULES, VALUES, by_numpy, contributions, settings_of
from tests.strategies.test_state import begin, member


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


GROUPS: tuple[Group, ...] = ((0, 1, 2), (3, 4, 5))


def six_clients() -> FederationState:
    state = FederationState.begin([member(k) for k in range(6)], settings_of())
    for client, view in state.views.items():
        state.views[client] = view.model_copy(update={"chosen": 1})
    return state


def means(heavy: int = 30) -> dict[Group, Contribution]:
    """Means of two groups: the second is nearer to the optimum at 0."""
    first, second = contributions()[:2]
    arrays = [{"angles": np.array(v, np.float32)} for v in ([2.0, 0.0], [0.0, 1.0])]
    return {
        GROUPS[0]: Contribution(arrays[0], 10, first.report),
        GROUPS[1]: Contribution(arrays[1], heavy, second.report),
    }


def evaluator() -> PartEvaluator:
    settings = settings_of("aggregation.rule=weighted", "aggregation.clip_radius=100")
    return PartEvaluator(settings, 1, loss_of, build_aggregator(settings), {"angles": np.zeros(2)})


def test_groups_are_evaluated_and_each_client_has_its_part() -> None:
    state, now = six_clients(), Round(1, Decision(participants=tuple(range(6)), steps={}))
    after = pack_parameters({"angles": np.array([0.5, 0.75])})  # weights 10 and 30
    record_groups(now, means(), state, evaluator(), after)
    (one,) = state.group_rounds
    assert one.groups == GROUPS
    loss = 0.5**2 + 0.75**2
    assert one.worth == pytest.approx((0.75 * (1.0 - loss), 0.25 * (4.0 - loss)))
    credits = [view.credit or 0.0 for view in state.views.values()]
    assert max(credits[:3]) < min(credits[3:])
    assert [view.standing for view in state.views.values()] == [None] * 6  # one round tells little
    assert [view.gain for view in state.views.values()] == [None] * 6


def test_standing_comes_once_a_client_is_solved_for() -> None:
    state = six_clients()
    after = pack_parameters({"angles": np.array([0.5, 0.75])})
    for number, groups in enumerate([((0, 1, 2), (3, 4, 5)), ((0, 3, 4), (1, 2, 5))] * 2):
        now = Round(number + 1, Decision(participants=tuple(range(6)), steps={}))
        parts: dict[Group, Contribution] = dict(zip(groups, means().values(), strict=True))
        record_groups(now, parts, state, evaluator(), after)
    found = estimates(state.group_rounds)
    views: list[ClientView] = list(state.views.values())
    assert [v.standing for v in views] == [
        found[v.client].value if found[v.client].solved else None for v in views
    ]
    assert any(v.standing is not None for v in views)


def test_without_an_evaluator_groups_alone_are_noted() -> None:
    state, now = six_clients(), Round(1, Decision(participants=tuple(range(6)), steps={}))
    before = dict(state.views)
    record_groups(now, means(), state, None, ArrayRecord())
    assert state.group_rounds == [GroupRound(GROUPS)]
    assert state.views == before


def test_of_one_group_nothing_is_learnt() -> None:
    state, now = six_clients(), Round(1, Decision(participants=tuple(range(6)), steps={}))
    everybody: dict[Group, Contribution] = {tuple(range(6)): next(iter(means().values()))}
    record_groups(now, everybody, state, evaluator(), ArrayRecord())
    assert state.group_rounds == [GroupRound((tuple(range(6)),))]
    assert [view.credit for view in state.views.values()] == [None] * 6


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
