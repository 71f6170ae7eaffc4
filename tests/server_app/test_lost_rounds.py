"""Whole runs in which those who were asked do not answer, and others are left."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.app import Message

from core import UserError
from core.messages import TRAIN
from strategies.decisions import Decision, Observation
from tests.conftest import Federate


@dataclass
class Names:
    """An agent that names whom it was told to, round by round."""

    who: list[list[int]]
    seen: list[Observation] = field(default_factory=list)
    name: str = "names"

    def decide(self, observation: Observation) -> Decision:
        self.seen.append(observation)
        chosen = self.who[observation.round - 1]
        return Decision(participants=tuple(chosen), steps=dict.fromkeys(chosen, 2))


def silent(*rounds: tuple[int, int]) -> Any:
    """Drop the answers of these rounds' clients."""
    lost = set(rounds)

    def spoil(order: Message, reply: Message) -> Message | None:
        if order.metadata.message_type != TRAIN:
            return reply
        at, client = int(order.metadata.group_id), order.metadata.dst_node_id - 1000
        return None if (at, client) in lost else reply

    return spoil


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_robust_rules_run_with_agents_that_weigh(federate: Federate, rule: str) -> None:
    ran = federate("agent.kind=greedy", f"aggregation.rule={rule}", "agent.price=0")
    credits = [view["credit"] for view in ran.decisions()[1]["observation"]["clients"]]
    assert all(credit is not None for credit in credits)


def test_a_lone_participant_that_fails_loses_a_round_and_not_the_run(federate: Federate) -> None:
    agent = Names([[0, 1], [2], [0, 1]])
    ran = federate("run.rounds=3", agent=agent, spoil=silent((2, 2)))
    first, lost, third = ran.events("round")
    assert (lost["round"], lost["participants"], lost["aggregated"]) == (2, [2], [])
    assert lost["failures"] == ["client 2: no reply in time"]
    assert (lost["loss"], lost["accuracy"]) == (first["loss"], first["accuracy"])
    assert lost["circuits"] == 0
    assert third["aggregated"] == [0, 1]
    assert len(agent.seen[2].losses) == 1  # a lost round is none of the history
    assert [view.client for view in agent.seen[2].clients] == [0, 1]
    summary = ran.summary
    assert (summary["status"], summary["rounds"]) == ("completed", 2)
    kept = {e["round"]: e["loss"] for e in (first, third)}[summary["best_round"]]
    assert summary["validation"]["loss"] == pytest.approx(kept)


def test_a_first_round_may_be_lost(federate: Federate) -> None:
    agent = Names([[2], [0, 1]])
    ran = federate("evaluation.keep=last", agent=agent, spoil=silent((1, 2)))
    lost, second = ran.events("round")
    assert lost["aggregated"] == []
    assert agent.seen[1].losses == ()
    assert ran.summary["best_round"] == 2
    assert ran.summary["validation"]["loss"] == second["loss"]


def test_what_too_few_answers_have_cost_stays_spent(federate: Federate) -> None:
    agent = Names([[0, 1, 2], [0, 1], [0, 2]])
    given = ("run.rounds=3", "run.min_replies=2", "agent.kind=all")
    ran = federate(*given, agent=agent, spoil=silent((2, 1)))
    lost = ran.events("round")[1]
    assert lost["aggregated"] == []
    assert lost["circuits"] > 0
    ledger = json.loads((ran.folder / "ledger.json").read_text())
    assert sum(e["circuits"] for e in ledger["entries"] if e["round"] == 2) == lost["circuits"]
    paid = [e for e in ran.events("client") if e["round"] == 2]
    assert [(e["client"], e["aggregated"]) for e in paid] == [(0, False)]
    assert ran.events("round")[2]["aggregated"] == [0, 2]


def test_rounds_are_not_lost_without_end(federate: Federate) -> None:
    agent = Names([[0], [1], [2], [0], [0]])
    with pytest.raises(UserError, match=r"round 3 has 0 valid replies of 1 .*no reply in time"):
        federate("run.rounds=5", agent=agent, spoil=silent((1, 0), (2, 1), (3, 2)))


def test_a_rounds_seconds_hold_the_judging_of_credit(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from server_app.evaluation import CentralEvaluator

    called: list[float] = []
    judge = CentralEvaluator.credit_loss

    def slow(self: Any, arrays: Any) -> float:
        called.append(time.monotonic())
        time.sleep(0.05)
        called.append(time.monotonic())
        return judge(self, arrays)

    monkeypatch.setattr(CentralEvaluator, "credit_loss", slow)
    ran = federate("agent.kind=greedy", "run.rounds=1")
    assert len(called) == 2 * (2 + 3 + 3)
    assert ran.events("round")[0]["seconds"] >= called[-1] - called[0]
