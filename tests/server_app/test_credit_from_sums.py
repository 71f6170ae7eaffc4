"""Credit from sums in whole secure runs: wrong labels show, agents take it, resumed runs go on."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import SettingsError, parse_run, read_jsonl
from strategies.decisions import ClientView, Decision, Observation
from tests.conftest import NO_TEACHER, Federate
from tests.server_app.test_resume import go_on, start

GROUPS = ("privacy.secure_aggregation=true", "privacy.group_size=3")
UNTAUGHT = ("distill.weight=0", *GROUPS)
TWELVE = (
    "run.clients=12",
    "run.rounds=5",
    "data.train_rows=600",
    "data.server_rows=300",
    "data.label_noise=0.6",
    "data.noisy_clients=2",
    "train.steps=8",
    "agent.kind=frugal",
)


class Everybody:
    """Lets everybody train, and keeps what it was shown."""

    name = "everybody"

    def __init__(self) -> None:
        self.shown: list[tuple[ClientView, ...]] = []

    def decide(self, observation: Observation) -> Decision:
        self.shown.append(observation.clients)
        steps = {view.client: observation.plain_steps for view in observation.clients}
        return Decision.to_train(steps, "everybody")


def standings(views: tuple[ClientView, ...]) -> np.ndarray:
    return np.array([np.nan if v.standing is None else v.standing for v in views])


def test_sites_with_wrong_labels_stand_lowest_by_sums_as_by_models(federate: Federate) -> None:
    solved, openly = Everybody(), Everybody()
    ran = federate(*TWELVE, *UNTAUGHT, agent=solved)
    federate(*TWELVE, "distill.weight=0", agent=openly)
    groups = [event["groups"] for event in ran.events("round")]
    assert [len(one) for one in groups] == [4] * 5
    pairs = (p for one in groups for group in one for p in combinations(group["clients"], 2))
    # 60 meetings in five rounds: by chance a third of them are of pairs that have met.
    assert len(set(pairs)) >= 48
    assert all(view.standing is None for view in (*solved.shown[0], *solved.shown[1]))
    last, beside = standings(solved.shown[-1]), standings(openly.shown[-1])
    assert set(np.argsort(last)[:2]) == set(np.argsort(beside)[:2]) == {0, 1}
    assert all(view.gain is None for view in solved.shown[-1])
    assert {view.credit is None for view in solved.shown[-1]} == {False}


@pytest.mark.parametrize("agent", ["kind=bandit", "kind=bandit,bandit=linucb", "kind=regulator"])
def test_agents_that_live_on_credit_take_it_from_sums(federate: Federate, agent: str) -> None:
    given = [f"agent.{one}" for one in agent.split(",")]
    few = ("run.clients=7", "run.rounds=4", "agent.price=0", "distill.weight=0", *GROUPS)
    ran = federate(*few, *given)
    seen = [line["observation"]["clients"] for line in ran.decisions()]
    assert {view["credit"] is None for view in seen[0]} == {True}
    assert {view["credit"] is None for view in seen[1]} == {False}
    assert all(line["participants"] for line in ran.decisions())


def test_a_run_that_goes_on_has_the_same_credit(tmp_path: Path) -> None:
    # UCB, whose choice does not depend on measured seconds; so wide that all take part.
    ucb = ("kind=bandit", "bandit=ucb", "fraction=1", "price=0", "idle_price=0", "exploration=50")
    given = ("run.clients=6", *(f"agent.{one}" for one in ucb))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start(whole, *given, *UNTAUGHT)
    start(broken, *given, *UNTAUGHT, "run.rounds=2")
    go_on(broken, *given, *UNTAUGHT)
    assert shown(whole) == shown(broken)
    assert any(view["standing"] is not None for view in shown(whole)[-1])


def shown(folder: Path) -> list[list[dict[str, Any]]]:
    """Return what the agent was shown of every client's credit, by round."""
    lines = [json.loads(json.dumps(line)) for line in read_jsonl(folder / "agent.jsonl")]
    names = ("client", "credit", "standing", "standing_variance")
    return [
        [{name: view[name] for name in names} for view in line["observation"]["clients"]]
        for line in lines
    ]


def test_credit_needs_groups_to_be_told_apart() -> None:
    with pytest.raises(SettingsError, match=r"privacy\.group_size of 3 or more: credit"):
        parse_run([], ["agent.kind=bandit", "privacy.secure_aggregation=true", *NO_TEACHER[:1]])
