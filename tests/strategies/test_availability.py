"""Who gets messages: nodes that left, came back, failed or are unknown; late replies' costs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.logger import FLOWER_LOGGER

from core import Settings, UserError, parse_run
from core.flower_compat import set_task_identity
from core.messages import (
    ADAPT,
    EVALUATE,
    METRICS,
    TRAIN,
    AdaptIns,
    AdaptReport,
    EvaluateIns,
    EvaluateReport,
    TrainIns,
    TrainReport,
    pack_instruction,
    pack_report,
)
from strategies import FederationState
from strategies.availability import POLL_SECONDS, poll_clients, wait_for_quorum
from strategies.deadlines import DeadlineGrid
from tests.strategies.test_deadlines import Post
from tests.strategies.test_state import begin

Events = list[dict[str, Any]]
ZEROS = {
    kind: dict.fromkeys(kind.__dataclass_fields__, 0)
    for kind in (TrainReport, EvaluateReport, AdaptReport)
}


class Nodes(DeadlineGrid):
    """Nodes that are there as the test says, and late replies as they are given."""

    def __init__(self, *there: int) -> None:
        super().__init__(Post())
        self.there: Callable[[], set[int]] = lambda: set(there)
        self.come: list[tuple[Message, Message]] = []

    def get_node_ids(self) -> set[int]:
        """Return who is there."""
        return self.there()

    def late(self) -> list[tuple[Message, Message]]:
        """Return what is given, once."""
        come, self.come = self.come, []
        return come


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what is logged, once, whether or not Flower's logger hands it on."""
    monkeypatch.setattr(FLOWER_LOGGER, "propagate", False)
    FLOWER_LOGGER.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    FLOWER_LOGGER.removeHandler(caplog.handler)


def settings(*given: str) -> Settings:
    return parse_run([], ["run.clients=2", *given])[0]


def shown(state: FederationState) -> list[int]:
    return [view.client for view in state.observe(2, settings()).clients]


def poll(grid: Nodes, state: FederationState, *given: str) -> Events:
    events: Events = []
    poll_clients(grid, state, settings(*given), events.append)
    return events


def test_who_has_gone_is_not_shown_until_it_is_back(logged: Any) -> None:
    state = begin()
    assert poll(Nodes(1000), state) == [{"event": "roll", "gone": [1], "busy": [], "back": []}]
    assert "clients gone: [1]" in logged.text
    assert shown(state) == [0]
    assert poll(Nodes(1000), state) == []  # once
    assert poll(Nodes(1001, 1000), state) == [
        {"event": "roll", "gone": [], "busy": [], "back": [1]}
    ]
    assert shown(state) == [0, 1]


def test_who_failed_takes_part_where_all_others_have_gone() -> None:
    state = begin()
    state.resting = frozenset({0})
    assert shown(state) == [1]
    poll(Nodes(1000, 1001), state)
    assert shown(state) == [1]
    poll(Nodes(1000), state)
    assert shown(state) == [0]


def test_an_unknown_node_is_reported_once_and_not_used(logged: Any) -> None:
    state = begin()
    assert poll(Nodes(1000, 1001, 77), state) == []
    assert poll(Nodes(1000, 1001, 77), state) == []
    assert logged.text.count("no clients of this run") == 1
    assert "[77]" in logged.text
    assert shown(state) == [0, 1]
    poll(Nodes(1000, 1001, 77, 78), state)
    assert "[78]" in logged.text


def test_where_nobody_knows_who_is_connected_all_take_part(logged: Any) -> None:
    def broken() -> set[int]:
        raise ConnectionError("no answer")

    grid, state = Nodes(), begin()
    grid.there = broken
    assert poll(grid, state) == []
    assert shown(state) == [0, 1]
    assert "not known: ConnectionError('no answer')" in logged.text


def test_a_round_waits_until_enough_are_back() -> None:
    grid, state = Nodes(), begin()
    slept: list[float] = []
    grid.there = lambda: {1000, 1001} if len(slept) == 3 else {1000}
    found = wait_for_quorum(grid, state, settings("run.min_replies=2"), slept.append)
    assert (found.gone, slept) == (frozenset(), 3 * [POLL_SECONDS])


def test_a_run_whose_nodes_stay_away_ends_with_one_line() -> None:
    given = settings("run.min_replies=2", "run.wait_seconds=60")
    slept: list[float] = []
    with pytest.raises(UserError) as caught:
        wait_for_quorum(Nodes(1000), begin(), given, slept.append)
    assert "1 clients are connected (gone: 1)" in str(caught.value)
    assert "run.min_replies = 2" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sum(slept) == pytest.approx(60)


# --- late replies ----------------------------------------------------------------------------


def late(kind: str, instruction: Any, answer: Any) -> Any:
    set_task_identity()
    sent = Message(pack_instruction({"a": np.zeros(2)}, instruction), 1000, kind)
    if isinstance(answer, Error):
        return sent, Message(answer, reply_to=sent)
    arrays: dict[str, np.ndarray] | None = None if isinstance(answer, EvaluateReport) else {}
    return sent, Message(pack_report(answer, arrays), reply_to=sent)


def train_order() -> TrainIns:
    return TrainIns(1, 3, 0, [1.0, 1.0], b"p", "run", "none", False)


def recorded(state: FederationState, *replies: Any) -> Events:
    grid = Nodes(1000, 1001)
    grid.come = list(replies)
    return poll(grid, state)


def failed() -> FederationState:
    """Client 0 has not answered the instruction of round 1: 3 steps, 26 circuits at most."""
    state = begin()
    state.settle({0: 3}, failed={0}, exhausted=set())
    assert state.owed == {0: 26}
    return state


def trained_late(**numbers: Any) -> Any:
    """Return an instruction and its reply; the numbers come afterwards: they may be false."""
    given: dict[str, Any] = {
        **ZEROS[TrainReport],
        "weight": 1.0,
        "rows": 10,
        "round": 1,
        "steps": 3,
        "circuits": 26,
    }
    sent, reply = late(TRAIN, train_order(), TrainReport(**given))
    reply.content.metric_records[METRICS].update(numbers)
    return sent, reply


def test_what_a_late_update_cost_is_in_the_ledger_of_its_round() -> None:
    state = failed()
    (event,) = recorded(state, trained_late())
    assert (event["event"], event["client"], event["round"]) == ("late", 0, 1)
    ((number, client, cost),) = state.ledger.entries
    assert (number, client, cost.circuits, cost.steps) == (1, 0, 26, 3)
    assert cost.bytes_up > 0
    assert cost.bytes_down > 0
    assert asdict(cost).items() <= event.items()
    assert state.owed == {}
    assert state.steps_done[0] == 0  # its model is not used


def test_what_an_order_failed_on_late_may_still_be_told_later() -> None:
    state = failed()
    (event,) = recorded(state, late(TRAIN, train_order(), Error(2, "the device went away")))
    assert (event["problem"], event["circuits"]) == ("the device went away", 0)
    assert state.owed == {0: 26}


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ({"circuits": 27}, "27 circuits of 26"),
        ({"round": 2}, "it answers round 2"),
        ({"steps": 4}, "steps 4 instead of at most 3"),
        ({"rows": 11}, "11 rows instead of 10"),
        ({"shots": 10}, "10 shots of 0"),
        ({"jobs": 27}, "27 jobs of 26"),
        ({"two_qubit_gates": 10**8}, "100000000 two-qubit gates of 26000000"),
        ({"qpu_seconds": 0.5}, "0.5 QPU seconds of 0.0"),
        ({"llm_tokens": 10**6}, "1000000 tokens of 7680"),
        ({"qpu_seconds": math.nan}, "qpu_seconds = nan: Input should be a finite number"),
        ({"train_seconds": -1.0}, "train_seconds = -1.0: Input should be greater than or equal"),
        ({"more": 1}, "more is no field of it"),
    ],
)
def test_a_late_update_that_cannot_be_true_is_reported_and_not_counted(
    numbers: dict[str, Any], why: str
) -> None:
    state = failed()
    (event,) = recorded(state, trained_late(**numbers))
    assert why in event["problem"]
    assert state.ledger.totals().circuits == 0
    assert state.owed == {0: 26}


def test_an_update_whose_owed_circuits_were_cleared_is_held_against_its_own_order() -> None:
    state = begin()  # nothing is owed: a later instruction has been answered meanwhile
    (event,) = recorded(state, trained_late())
    assert (event["problem"], event["circuits"]) == ("", 26)


def test_late_evaluations_and_parts_in_the_shared_adapter_are_counted() -> None:
    state = failed()
    report: dict[str, Any] = {**ZEROS[EvaluateReport], "rows": 5, "circuits": 5}
    report |= {"confusion": [5, 0, 0, 0], "logistic_projected": [], "logistic_full": []}
    adapted = {**ZEROS[AdaptReport], "rows": 10, "round": 2, "llm_tokens": 70}
    instruction = EvaluateIns(1, "validation", b"p", "run", "none")
    events = recorded(
        state,
        late(EVALUATE, instruction, EvaluateReport(**report)),
        late(ADAPT, AdaptIns(2), AdaptReport(**adapted)),
    )
    assert [event["problem"] for event in events] == ["", ""]
    places = [(number, client) for number, client, _ in state.ledger.entries]
    assert places == [(1, 0), (0, 0)]  # the shared adapter's rounds are the preparation
    spent = state.ledger.totals()
    assert (spent.circuits, spent.llm_tokens) == (5, 70)
    assert state.owed == {0: 26}


def test_a_late_part_of_another_round_of_the_shared_adapter_is_not_counted() -> None:
    state = begin()
    adapted = {**ZEROS[AdaptReport], "round": 1, "llm_tokens": 70}
    (event,) = recorded(state, late(ADAPT, AdaptIns(2), AdaptReport(**adapted)))
    assert event["problem"] == "it answers round 1"
    assert state.ledger.totals().llm_tokens == 0
