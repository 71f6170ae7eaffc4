"""The strategy's state goes to JSON and comes back as it was."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import Cost, Settings, plain
from core.ledger import AgentUsage
from strategies.group_credit import GroupRound
from strategies.snapshot import StoredState, restored, snapshot
from strategies.state import FederationState
from tests.strategies.test_state import begin, member, trained

finite = st.floats(allow_nan=False, allow_infinity=False)


def there_and_back(state: FederationState) -> FederationState:
    stored = json.loads(json.dumps(plain(snapshot(state))))
    return restored(stored, [member(0), member(1)], Settings())


def used() -> FederationState:
    """A state in which nothing is as it was at the start."""
    state = begin()
    state.trained(0, trained(0.9, 0.3), Cost(circuits=5), 6)
    state.finish_round([0], 0.6, 0.7)
    state.trained(1, trained(0.5, 0.0), Cost(), 6)  # a perfect language model: r is infinite
    state.settle({0: 3}, {0}, set())
    state.lose_round({0}, 1)
    state.measured.add(1)
    state.start_loss = 0.69
    state.group_rounds = [GroupRound(((0, 1, 2), (3, 4, 5)), (0.1, -0.2), 0.3)]
    state.absent, state.unknown_nodes = frozenset({1}), frozenset({77})
    state.ledger.add(1, {0: Cost(circuits=5, train_seconds=0.1)})
    state.ledger.add_agent_usage(1, AgentUsage(2, 30, 4, 0.5))
    state.ledger.repeated.append((1, 1, Cost(shots=9)))
    return state


def test_every_field_is_written() -> None:
    otherwise = {"members", "views", "weights", "ledger", "started"}
    named = {*StoredState.model_fields, *otherwise}
    assert named == {field.name for field in fields(FederationState)}


def test_a_used_state_comes_back_as_it_was() -> None:
    state = used()
    again = there_and_back(state)
    for field in fields(FederationState):
        if field.name != "started":
            assert getattr(again, field.name) == getattr(state, field.name), field.name
    assert again.views[1].ratio == math.inf
    assert again.started == pytest.approx(state.started, abs=5)


def test_what_an_older_file_lacks_has_a_place_for_every_round() -> None:
    """Who trained is held against the losses, round by round."""
    stored = json.loads(json.dumps(plain(snapshot(used()))))
    del stored["participants"], stored["spends"], stored["group_rounds"]
    again = restored(stored, [member(0), member(1)], Settings())
    assert (again.participants, again.spends) == ([0], [0])
    assert again.group_rounds == []
    assert len(again.losses) == 1


def test_the_clock_of_the_run_goes_on_where_it_stood() -> None:
    state = begin()
    state.started -= 1000
    stored = snapshot(state)
    assert stored["elapsed"] >= 1000
    again = restored(stored, [member(0), member(1)], Settings())
    assert again.started <= state.started + 60


@given(st.lists(st.tuples(finite, finite), max_size=5))
def test_numbers_come_back_to_the_last_bit(pairs: list[tuple[float, float]]) -> None:
    state = begin()
    state.losses = [loss for loss, _ in pairs]
    state.accuracies = [accuracy for _, accuracy in pairs]
    again = there_and_back(state)
    assert (again.losses, again.accuracies) == (state.losses, state.accuracies)


def test_a_site_on_another_backend_has_its_new_price() -> None:
    state = used()
    stored = json.loads(json.dumps(plain(snapshot(state))))
    moved = replace(member(0), about=replace(member(0).about, circuits_per_step=99))
    again = restored(stored, [moved, member(1)], Settings())
    assert again.views[0].circuits_per_step == 99
    assert again.views[0].loss == state.views[0].loss


def test_who_cannot_pay_stays_out() -> None:
    state = used()
    state.retire(0)
    assert set(there_and_back(state).views) == {1}
