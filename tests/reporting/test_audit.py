"""Recorded runs replayed: the same decisions, and what is reported of a changed record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import UserError
from llm_qfl.cli.commands import audit_lines
from reporting.audit import audit, main
from tests.command import llm_qfl
from tests.conftest import Federate

Recorded = Callable[..., Path]

CENTRAL = ("privacy.dp=central", "aggregation.rule=uniform")
SECRET = (*CENTRAL, "agent.kind=random", "agent.fraction=0.5")
AGENTS = (
    ("agent.kind=rule", "agent.fraction=0.5"),
    ("agent.kind=rule", "agent.rule=hybrid", "evaluation.mode=federated", "data.server_rows=0"),
    ("agent.kind=all",),
    ("agent.kind=random", "agent.fraction=0.5", "run.seed=3"),
    ("agent.kind=greedy", "agent.fraction=0.5"),
    ("agent.kind=bandit", "agent.bandit=ucb", "agent.circuit_prices=1,1,5"),
    ("agent.kind=bandit", "agent.bandit=linucb"),
    ("agent.kind=bandit", "agent.bandit=linucb", "evaluation.mode=federated", "data.server_rows=0"),
    ("agent.kind=rule", "stop.circuits=60000"),
    ("agent.kind=bandit", "stop.wall_seconds=100", "agent.price=5"),
    SECRET,
    (*CENTRAL, "agent.kind=all", "privacy.noise=4", "privacy.max_epsilon=1.5"),
)


RULE, ALL, RANDOM, BANDIT = AGENTS[0], AGENTS[2], AGENTS[3], AGENTS[5]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "agent.jsonl").read_text().splitlines()]


def change(folder: Path, number: int, **values: Any) -> None:
    path = folder / "agent.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number - 1] |= values
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def recordings() -> dict[tuple[str, ...], Path]:
    return {}


@pytest.fixture
def recorded(
    federate: Federate, recordings: dict[tuple[str, ...], Path], tmp_path: Path
) -> Recorded:
    """Return a function that runs four rounds, each agent's once, and copies the folder."""

    def copy(*given: str) -> Path:
        if given not in recordings:
            recordings[given] = federate("run.rounds=4", *given).folder
        return Path(shutil.copytree(recordings[given], tmp_path / "record"))

    return copy


@pytest.mark.parametrize("given", AGENTS, ids=" ".join)
def test_a_recorded_run_comes_out_the_same(recorded: Recorded, given: tuple[str, ...]) -> None:
    folder = recorded(*given)
    name, found, _ = audit(folder)
    assert f'"agent": {json.dumps(name)}' in (folder / "metrics.jsonl").read_text()
    assert [(one.round, one.differs) for one in found] == [
        (line["round"], ()) for line in lines_of(folder)
    ]
    assert len(found) >= 2


def test_a_stop_by_the_privacy_budget_is_taken_as_recorded(recorded: Recorded) -> None:
    folder = recorded(*AGENTS[-1])
    reason = lines_of(folder)[-1]["reason"]
    assert reason.startswith("round 3 would spend epsilon ")
    change(folder, 3, reason="enough")
    assert len(audit(folder)[1][2].differs) == 4


def test_of_a_secret_draw_the_size_and_the_steps_are_replayed(recorded: Recorded) -> None:
    folder = recorded(*SECRET)
    first = lines_of(folder)[0]
    kept = first["participants"][:1]
    steps = {str(k): first["steps"][str(k)] for k in kept}
    change(folder, 1, participants=kept, steps=steps)
    assert [bool(one.differs) for one in audit(folder)[1]][:2] == [True, False]


def test_a_decision_that_was_changed_is_found_with_both_values(recorded: Recorded) -> None:
    folder = recorded(*BANDIT)
    steps = lines_of(folder)[1]["steps"]
    more = {client: count + 1 for client, count in steps.items()}
    change(folder, 2, steps=more, guard=["client 0: 99 steps bounded to 4"])
    _, found, _ = audit(folder)
    assert not any(one.differs for one in found if one.round != 2)
    assert found[1].differs == (
        f"steps {json.dumps(more)} recorded, {json.dumps(steps)} replayed",
        'guard ["client 0: 99 steps bounded to 4"] recorded, [] replayed',
    )


def test_settings_that_were_changed_are_found(recorded: Recorded) -> None:
    path = recorded(*RANDOM) / "config.json"
    config = json.loads(path.read_text())
    config["settings"]["run"]["seed"] = 9
    path.write_text(json.dumps(config))
    _, found, _ = audit(path.parent)
    assert any("participants [" in difference for one in found for difference in one.differs)


def test_an_observation_that_was_changed_leads_to_another_decision(recorded: Recorded) -> None:
    folder = recorded(*RULE)
    line = lines_of(folder)[1]
    (left_out,) = set(range(3)) - set(line["participants"])
    line["observation"]["clients"][left_out]["gap"] = 0.0
    line["observation"]["clients"][line["participants"][0]]["gap"] = 9.0
    change(folder, 2, **line)
    assert "participants" in audit(folder)[1][1].differs[0]


def test_a_perfect_language_model_has_an_infinite_ratio_on_record_too(recorded: Recorded) -> None:
    folder = recorded("agent.kind=rule", "agent.rule=adaptive")
    seen = lines_of(folder)[1]["observation"]
    seen["clients"][0] |= {"llm_loss": 0.0, "ratio": None}  # JSON knows no infinity
    change(folder, 2, observation=seen)
    assert '"0": 100' in audit(folder)[1][1].differs[0]  # the most that a rule gives


def test_where_no_client_is_left_the_strategy_stops(recorded: Recorded) -> None:
    folder = recorded(*ALL)
    line = lines_of(folder)[1]
    line["observation"]["clients"] = []
    line |= {"participants": [], "steps": {}, "stop": True}
    change(folder, 2, **{**line, "reason": "the budget of every client is spent"})
    assert audit(folder)[1][1].differs == ()


def test_what_is_no_record_is_refused_in_one_line(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(*ALL)
    path = folder / "agent.jsonl"
    whole = path.read_text()
    first, second, *_ = whole.splitlines()
    spoilt = {
        "line 1 is no JSON (Expecting": "{]\n",
        "line 1 lacks participants, steps": '{"round": 1, "observation": {}, "kind": "all", '
        '"stop": false, "reason": "", "guard": []}\n',
        "line 1, observation.max_steps: Field required": first.replace('"max_steps"', '"most"')
        + "\n",
        "line 1 is of round 2, its observation of 2": second + "\n",
        "it holds no decision": "",
    }
    for named, text in spoilt.items():
        path.write_text(text)
        with pytest.raises(UserError, match=r"agent\.jsonl") as caught:
            audit(folder)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="line 1 is no text in UTF-8"):
        audit(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"no .*agent\.jsonl"):
        audit(folder)
    path.write_text(whole)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no settings in .*config\.json"):
        audit(folder)
    assert main([str(tmp_path / "nowhere")]) == 2
    printed = capsys.readouterr().err
    assert "nowhere" in printed
    assert len(printed.splitlines()) == 1


def test_a_damaged_line_is_named_and_the_others_are_replayed(
    recorded: Recorded, tmp_path: Path
) -> None:
    folder = recorded(*ALL)
    path = folder / "agent.jsonl"
    first, second, third, _ = path.read_text().splitlines()
    spoilt = {
        "line 2 is no JSON (Expecting": (1, 3, first + "\n{]\n" + third + "\n"),
        "line 2, decision.steps.0: Input should": (
            1,
            3,
            "\n".join([first, json.dumps({**json.loads(second), "steps": {"0": None}}), third, ""]),
        ),
        "line 3 is not complete": (1, 2, first + "\n" + second + "\n" + third[:-9]),
    }
    for named, (*rounds, text) in spoilt.items():
        path.write_text(text)
        _, found, (damage,) = audit(folder)
        assert [(one.round, one.differs) for one in found] == [(at, ()) for at in rounds]
        assert named in damage
        assert "\n" not in damage
    ended = llm_qfl(tmp_path, "audit", str(folder))
    assert ended.returncode == 2
    assert ended.stdout.splitlines()[-1] == "2 of 2 decisions come out the same"
    assert "line 3 is not complete" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_line_whose_decision_is_none_is_refused_in_one_line(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded(*ALL)
    path = folder / "agent.jsonl"
    whole = path.read_text().splitlines(keepends=True)[0]
    spoilt: list[tuple[dict[str, Any], str]] = [
        ({"participants": 3}, "line 1, decision.participants: Input should be a valid tuple"),
        ({"steps": {"0": None}}, "line 1, decision.steps.0: Input should be a valid integer"),
        ({"stop": [1]}, "line 1, decision.stop: Input should be a valid boolean"),
        ({"attempts": ["x"]}, "line 1, attempts: Input should be a valid dictionary"),
        ({"attempts": 7}, "line 1, attempts: Input should be a valid dictionary"),
        ({"attempts": [{"prompt": 5}]}, "line 1, attempts.prompt: Input should be a valid string"),
    ]
    for values, named in spoilt:
        path.write_text(whole)
        change(folder, 1, **values)
        assert main([str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line


def test_the_command_prints_a_table_and_says_it_by_its_exit_code(
    recorded: Recorded, tmp_path: Path
) -> None:
    folder = recorded(*RANDOM)
    same = llm_qfl(tmp_path, "audit", str(folder))
    assert same.returncode == 0, same.stderr
    assert same.stdout.splitlines()[0] == "agent: random"
    assert same.stdout.splitlines()[-1] == "4 of 4 decisions come out the same"
    change(folder, 3, reason="because")
    other = llm_qfl(tmp_path, "audit", str(folder))
    assert other.returncode == 1
    assert other.stdout.splitlines()[-2:] == ["", "3 of 4 decisions come out the same"]
    assert 'reason "because" recorded, "drawn at random: 2" replayed' in other.stdout
    mistaken = llm_qfl(tmp_path, "audit", str(tmp_path / "nowhere"))
    assert mistaken.returncode == 2
    assert len(mistaken.stderr.splitlines()) == 1
    assert mistaken.stderr.startswith("llm-qfl: no folder")


def test_the_table_names_who_trained_and_what_differs() -> None:
    def one(number: int, **more: Any) -> dict[str, Any]:
        base = {"round": number, "clients": 3, "participants": [0, 2], "stop": False}
        return {**base, "steps": {"0": 5, "2": 7}, "differs": [], **more}

    rounds = [one(1), one(2, differs=["steps x"]), one(3, participants=[], steps={}, stop=True)]
    assert audit_lines({"agent": "greedy", "rounds": rounds}) == [
        "agent: greedy",
        "",
        "round  clients  steps         replayed",
        "    1  0 2      5 7           same",
        "    2  0 2      5 7           differs",
        "       - steps x",
        "    3  stop                   same",
        "",
        "2 of 3 decisions come out the same",
    ]
