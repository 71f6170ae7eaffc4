"""The runner of the studies of agents, and that every study of ours is one that can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llm_qfl
from bench import scenario
from bench.scenario import SLOW, SLOWNESS, UntilTarget, modelled_seconds, paced
from bench.study_tables import first_round, paid, same_loss, scores
from bench.tables import ROOT
from core import UserError, circuit_prices, read_json
from llm_qfl.configuration import flat_values
from llm_qfl.studies.file import read_study_file
from llm_qfl.studies.plan import Plan, make_plan
from reporting.compared_run import smoothed
from reporting.study_record import read_study_record
from strategies import plausibility
from strategies.decisions import ClientView, Decision, Observation
from tests.conftest import Federate

STUDIES = sorted((ROOT / "bench" / "studies").glob("*.toml"))


def plan_of(file: Path) -> Plan:
    requested: dict[str, Any] = {
        "seeds": [0],
        "reference": None,
        "target": None,
        "margin": 0,
        "figures": (),
        "runner": "",
        **read_study_file(file),
    }
    own, config, grid = (requested.pop(key, {}) for key in ("set", "config", "grid"))
    return make_plan(config, grid, flat_values(own), **requested)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_is_short_and_can_run(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    plan = plan_of(file)
    assert any(plan.is_reference(cell) for cell in plan.cells)
    assert all(cell.settings.llm.store == "runs/bench/store" for cell in plan.cells)
    assert not any(cell.settings.run.report for cell in plan.cells)


@pytest.mark.parametrize("data", ["dna", "tweets", "trec", "splice"])
def test_agents_differ_from_plain_qfl_by_the_agent_only(data: str) -> None:
    plan = plan_of(ROOT / "bench" / "studies" / f"agents-{data}.toml")
    by_name = {cell.values["agent"]: cell.settings for cell in plan.cells}
    assert len(by_name) == 9
    plain = by_name["plain, all rounds"]
    assert plain.agent.kind == "all"
    for settings in by_name.values():
        assert settings.model_copy(update={"agent": plain.agent}) == plain
        prices = circuit_prices(settings.agent.circuit_prices, settings.run.clients) or ()
        dear = {client for client, price in enumerate(prices) if price == 5}
        assert len({*range(settings.data.noisy_clients), *SLOW, *dear}) == 6


def test_what_guides_alone_differs_among_the_runs_of_a_set() -> None:
    plan = plan_of(ROOT / "bench" / "studies" / "distillation.toml")
    for cell in plan.cells:
        reference = next(
            other.settings
            for other in plan.cells
            if plan.is_reference(other) and other.values["set"] == cell.values["set"]
        )
        settings, guided = cell.settings, str(cell.values["guided"])
        assert reference.distill.kind == "smoothing"
        changed = {"distill": reference.distill, "llm": reference.llm}
        if "tuned" in guided:
            changed["features"] = reference.features
        if "transfer" in guided:
            rows = settings.data.unlabelled_rows
            assert rows == 1500
            changed["data"] = reference.data
            assert settings.data == reference.data.model_copy(update={"unlabelled_rows": rows})
        assert settings.model_copy(update=changed) == reference


def seen(*accuracies: float) -> Observation:
    views = tuple(ClientView(client=k, rows=9, steps=5) for k in range(3))
    return Observation(
        round=len(accuracies) + 1,
        rounds_left=9,
        min_steps=1,
        max_steps=50,
        losses=tuple(1 - a for a in accuracies),
        accuracies=accuracies,
        clients=views,
    )


class Scripted:
    name = "scripted"

    def __init__(self, *decisions: Decision) -> None:
        self.left = list(decisions)

    def decide(self, observation: Observation) -> Decision:
        return self.left.pop(0)


STOP = Decision(participants=(), steps={}, stop=True, reason="enough")
ONE = Decision(participants=(1,), steps={1: 7}, reason="one")


def test_before_the_target_a_stop_repeats_the_last_decision() -> None:
    agent = UntilTarget(Scripted(STOP, ONE, STOP), target=0.8)
    first = agent.decide(seen())
    assert (first.stop, first.participants) == (False, (0, 1, 2))
    assert set(first.steps.values()) == {5}
    assert [agent.decide(seen(0.5)), agent.decide(seen(0.5, 0.9))] == [ONE, ONE]
    assert agent.overruled == 2
    # 0.9 was there before: only a mean of three rounds counts.
    ended = agent.decide(seen(0.5, 0.9, 0.9, 0.7))
    assert (ended.stop, ended.reason) == (True, "the target is reached")


def test_without_a_target_nothing_stops() -> None:
    agent = UntilTarget(Scripted(ONE), target=None)
    assert agent.decide(seen(1.0, 1.0, 1.0)) == ONE


def test_no_run_costs_more_than_plain_qfl() -> None:
    agent = UntilTarget(Scripted(ONE, ONE), target=None)
    paying = seen(0.5).model_copy(update={"plain_spend": 10.0, "spends": (10.0,) * 29})
    assert agent.decide(paying) == ONE  # the thirtieth round
    assert agent.decide(paying.model_copy(update={"spends": (290.5,)})).stop
    assert not agent.decide(paying.model_copy(update={"spends": (289.5,)})).stop


def test_an_asked_agent_is_still_one_to_the_journal() -> None:
    from strategies.decisions import HasTranscript

    inner = Scripted()
    assert not isinstance(UntilTarget(inner, 0.5), HasTranscript)
    inner.attempts, inner.decided_by = (), "model"  # type: ignore[attr-defined]
    assert isinstance(UntilTarget(inner, 0.5), HasTranscript)


def test_seconds_are_those_of_the_circuits(federate: Federate) -> None:
    before = plausibility.SLACK_SECONDS
    with modelled_seconds():
        ran = federate("run.clients=4", "agent.kind=all", spoil=paced)
    assert before == plausibility.SLACK_SECONDS
    events = ran.events("client")
    assert {event["client"] for event in events} == {0, 1, 2, 3}
    for event in events:
        slowness = SLOWNESS if event["client"] in SLOW else 1
        assert event["train_seconds"] == pytest.approx(event["circuits"] * slowness / 1000)
        assert event["busy_seconds"] == event["train_seconds"]
        assert event["idle_seconds"] == pytest.approx(
            max(e["busy_seconds"] for e in events if e["round"] == event["round"])
            - event["busy_seconds"]
        )


def test_a_study_of_agents_ends_each_run_at_plains_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {
        "clients": 3,
        "rounds": 6,
        "data": {"train_rows": 120, "test_rows": 60, "server_rows": 40},
        "train": {"steps": 3},
        "distill": {"weight": 0},
        "evaluation": {"baselines": False, "keep": "last"},
        "report": False,
    }
    plain = {"agent.kind": "all"}
    found = llm_qfl.study(
        grid={"agent": {"to the end": plain, "plain": plain, "random": {"agent.kind": "random"}}},
        reference="to the end",
        target="reference",
        margin=0.02,
        runner=scenario.run_cell,
        figures=["overruled"],
        folder="study",
        jobs=1,
        quiet=True,
        **settings,
    )
    table = found.table.set_index("agent")
    assert list(table["status"]) == ["completed"] * 3
    rounds = llm_qfl.read(table.loc["plain", "folder"]).rounds
    whole = llm_qfl.read(table.loc["to the end", "folder"]).rounds
    target = (smoothed(list(whole["accuracy"])) or 0) - 0.02
    first = next(k for k in range(3, 7) if (smoothed(whole["accuracy"][:k]) or 0) >= target)
    assert (len(whole), len(rounds)) == (6, first)
    assert first < 6  # or nothing was tried
    # Same seed, same digits until it ends; where it got there is what the study says.
    assert list(rounds["loss"]) == list(whole["loss"][:first])
    for cost in ("rounds", "circuits", "seconds", "idle_seconds", "bytes"):
        assert table.loc["plain", f"{cost}_to_target"] == table.loc["plain", cost]
        assert table.loc["to the end", f"{cost}_to_target"] == table.loc["plain", cost]
    summary = read_json(Path(table.loc["plain", "folder"]) / "summary.json")
    assert summary["stop_reason"] == "the target is reached"
    assert not (Path(table.loc["plain", "folder"]) / "checkpoint").exists()
    _check_tables(tmp_path / "study", first)


def _check_tables(folder: Path, first: int) -> None:
    record = read_study_record(folder)
    tested, costs = scores(record).splitlines(), paid(record).splitlines()
    for table in (tested, costs):
        assert len(table) == 5
        assert len({line.count("|") for line in table}) == 1
    assert costs[3].startswith(f"| plain | 1/1 | {first:.2f}; median {first:.2f}; +0.0 %, 0/1 |")
    best = list(record.curves[0]["loss"])
    where = best.index(min(best)) + 1
    assert same_loss(record, ("to the end",)) == f"{where:.1f} ({where})"


def test_callbacks_are_refused() -> None:
    from core import parse_run

    settings, _ = parse_run([], [])
    with pytest.raises(UserError, match=r"callbacks for bench\.scenario"):
        scenario.run_cell(settings, None, callbacks=[print])


def test_the_first_round_at_a_loss_by_hand() -> None:
    assert first_round([0.9, 0.7, 0.8, 0.7], 0.7) == 2
    assert first_round([0.9, 0.8], 0.7) is None
