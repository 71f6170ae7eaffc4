from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import agent as bench
from bench.agent import (
    AGENTS,
    CLIENTS,
    DEAR,
    DEARNESS,
    MARGIN,
    SETS,
    SLOW,
    SLOWNESS,
    Case,
    UntilTarget,
    allow_modelled_seconds,
    figures,
    given_by,
    main,
    paced,
    settings_of,
)
from bench.agent_tables import (
    OURS,
    PLAIN,
    finding,
    interval,
    lost,
    proof,
    saving,
    smoothed,
    spread,
)
from core import Cost, Ledger, circuit_prices, with_idle
from strategies import plausibility
from strategies.decisions import ClientView, Decision, Observation
from tests.conftest import Federate


@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("name", AGENTS)
def test_every_case_differs_from_plain_qfl_by_its_agent_only(data: str, name: str) -> None:
    settings = settings_of(Case(data, 3, name, "target"))
    plain = settings_of(Case(data, 3, PLAIN, "target"))
    assert settings.model_copy(update={"agent": plain.agent}) == plain
    assert plain.agent.kind == "all"
    prices = circuit_prices(settings.agent.circuit_prices, CLIENTS) or ()
    assert {k for k, price in enumerate(prices) if price == DEARNESS} == set(DEAR)
    noisy = set(range(settings.data.noisy_clients))
    assert len(noisy | {*SLOW, *DEAR}) == 6
    free = settings_of(Case(data, 3, name, "free"))
    assert (free.stop != settings.stop) == name.startswith("rule")


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


def test_an_asked_agent_is_still_one_to_the_journal() -> None:
    from strategies.decisions import HasTranscript

    inner = Scripted()
    assert not isinstance(UntilTarget(inner, 0.5), HasTranscript)
    inner.attempts, inner.decided_by = (), "model"  # type: ignore[attr-defined]
    assert isinstance(UntilTarget(inner, 0.5), HasTranscript)


def test_smoothed_is_the_mean_of_three_rounds() -> None:
    assert smoothed([0.5, 0.6]) is None
    assert smoothed([0.1, 0.5, 0.6, 0.7]) == pytest.approx(0.6)


def test_figures_by_hand() -> None:
    ledger = Ledger()
    ledger.add(0, {0: Cost(bytes_up=10), 1: Cost(bytes_up=10)})
    costs = {0: Cost(circuits=100, train_seconds=1.0), 1: Cost(circuits=50, train_seconds=4.0)}
    ledger.add(1, with_idle(costs))
    ledger.add(2, with_idle({0: Cost(circuits=100, train_seconds=1.0, bytes_down=7)}))
    assert figures(ledger, (1.0, 5.0)) == {
        "circuits": 250,
        "spend": 450.0,
        "busy_seconds": 6.0,
        "idle_seconds": 3.0,
        "seconds": 5.0,
        "bytes": 27,
    }


def test_seconds_are_those_of_the_circuits(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plausibility, "SLACK_SECONDS", plausibility.SLACK_SECONDS)  # put back
    allow_modelled_seconds()
    ran = federate("run.clients=4", "agent.kind=all", spoil=paced)
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


def test_a_run_takes_the_agent_that_it_is_given(federate: Federate) -> None:
    ran = federate(agent=UntilTarget(Scripted(ONE, ONE), None))
    assert [d["steps"] for d in ran.decisions()] == [{"1": 7}] * 2
    assert ran.events("prepared")[0]["agent"] == "scripted"


def line(**changes: Any) -> dict[str, Any]:
    whole = {
        "target": 0.8,
        "accuracy": 0.9,
        "reached": True,
        "rounds": 20,
        "circuits": 4_000_000,
        "spend": 8e6,
        "busy_seconds": 4e3,
        "idle_seconds": 6e3,
        "seconds": 1e3,
        "bytes": 2_000_000,
    }
    return {**whole, **changes}


def test_savings_are_of_the_same_seeds_and_of_their_sum() -> None:
    plain = {0: line(), 1: line(circuits=1_000_000), 3: line()}
    runs = {0: line(circuits=1_000_000), 1: line(circuits=1_500_000), 2: line()}
    found = saving(runs, plain, "circuits")
    assert found is not None
    assert (found.total, found.wins, found.seeds) == (50.0, 1, 2)
    # Resampled seeds: twice the first, twice the second, or both.
    assert (found.low, found.high) == pytest.approx((-50.0, 75.0))
    assert str(found) == "+50.0 [-50.0, +75.0], 1/2"
    assert str(saving({0: runs[0]}, plain, "circuits")) == "+75.0, 1/1"
    assert saving({5: line()}, plain, "circuits") is None
    assert lost({0: line(accuracy=0.88)}, plain) == [pytest.approx(-2.0)]


def test_who_never_reached_the_target_wins_nothing() -> None:
    cheap = {0: line(circuits=1, reached=False)}
    other = {0: line()}
    ours, theirs = saving(cheap, other, "circuits"), saving(other, cheap, "circuits")
    assert ours is not None
    assert theirs is not None
    assert (ours.mark, ours.wins, theirs.mark, theirs.wins) == ("<= ", 0, ">= ", 1)
    assert str(saving(cheap, cheap, "circuits")) == "~ +0.0, 0/1"


def test_intervals_are_students() -> None:
    # t(0.975, 2) = 4.3027; the standard deviation of 1, 2, 3 is 1.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    assert interval([1.0]) == 0
    assert spread([1.0, 2.0, 3.0], "+.2f", ">= ") == ">= +2.00 ± 2.48"
    assert (spread([]), spread([1.5])) == ("-", "1.5")


def test_findings_depend_on_the_mean_and_its_interval() -> None:
    assert finding(61.0, 55.0, 50, 10) == " (met)"
    assert finding(61.0, 45.0, 50, 10) == " (met on average)"
    assert finding(49.0, 45.0, 50, 10) == " (missed)"
    # An upper bound can miss, but not meet; a lower bound meet, but not miss.
    assert finding(61.0, 55.0, 50, 10, "<= ") == " (open)"
    assert finding(49.0, 45.0, 50, 10, "<= ") == " (missed)"
    assert finding(61.0, 55.0, 50, 10, ">= ") == " (met)"
    assert finding(49.0, 45.0, 50, 10, ">= ") == " (open)"
    assert finding(61.0, 55.0, 50, 10, "~ ") == " (open)"
    assert finding(61.0, 55.0, 50, 4) == ""


def test_tables_mark_what_never_reached_the_target() -> None:
    plain = {seed: line() for seed in range(6)}
    whole = {seed: line(target=None, reached=False, rounds=30) for seed in range(6)}
    cheap = {seed: line(circuits=1_000_000, reached=seed > 0) for seed in range(6)}
    agents = {PLAIN: plain, "x": cheap, OURS: plain}
    paid, saves, ours = (part.splitlines() for part in proof(agents, whole).split("\n\n"))
    assert paid[2].startswith("| plain, all rounds | - | 90.00 ± 0.00 | 30.0 ± 0.0 | 4.00 ± 0.00 |")
    assert paid[3].startswith("| plain | 6/6 | 90.00 ± 0.00 | 20.0 ± 0.0 | 4.00 ± 0.00 |")
    assert "| 60.0 ± 0.0 |" in paid[3]
    assert paid[4].startswith("| x | 5/6 | 90.00 ± 0.00 | >= 20.0 ± 0.0 | >= 1.00 ± 0.00 |")
    assert saves[2].startswith("| x | <= +75.0 [+75.0, +75.0], 5/6 (open) | <= +0.0")
    assert saves[2].count("(missed)") == 2
    assert saves[2].endswith("| +0.00 ± 0.00, 6/6 (met) |")
    assert ours[2].startswith("| x | >= -300.0 [-300.0, -300.0], 1/6 |")
    assert len(ours) == 3
    for table in (paid, saves, ours):
        assert len({row.count("|") for row in table}) == 1


def test_the_target_is_plains_end_less_half_a_point_and_runs_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, str, float | None]] = []

    def measure(case: Case, data: Path, store: str, target: float | None) -> dict[str, Any]:
        made.append((case.agent, case.goal, target))
        if len(made) == 4:
            raise KeyboardInterrupt
        accuracies = [0.5, 0.8, 0.8, 0.8]
        return {**line(), **given_by(case, target), "accuracies": accuracies, "wall": 1.0}

    monkeypatch.setattr(bench, "measure", measure)
    (tmp_path / "human_vs_worm").mkdir()
    asked = ["--data", str(tmp_path), "--only", "dna", "--seeds", "0", "--agents", "random"]
    asked += ["--free", "--out", str(tmp_path / "out.jsonl")]
    with pytest.raises(KeyboardInterrupt):
        main(asked)
    assert main(asked) == 0
    target: Any = pytest.approx(0.8 - MARGIN)
    assert made[:3] == [(PLAIN, "end", None), (PLAIN, "target", target), (PLAIN, "free", None)]
    assert made[3] == made[4] == ("random", "target", target)
    assert made[5:] == [("random", "free", None)]
    main(asked)
    assert len(made) == 6
    out = capsys.readouterr().out
    assert out.count("### dna") == 2
    assert out.count("| random |") == 6
