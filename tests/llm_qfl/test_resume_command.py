"""`llm-qfl run --resume`: what is checked and prepared before anything is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import UserError, append_jsonl, parse_run, write_json
from core.storage.checkpoints import write_checkpoint
from llm_qfl.cli.app import dispatch
from llm_qfl.cli.follow import Outcome
from llm_qfl.cli.formatting import resumed_line
from llm_qfl.cli.plan import resumed_plan
from llm_qfl.cli.screen import Screen


def interrupted(run: Path, *given: str, rounds: int = 3) -> Path:
    """Write what a run that was broken off in its fourth round leaves."""
    settings, _ = parse_run([], ["run.clients=2", "run.seed=7", "run.name=demo", *given])
    write_json(run / "config.json", {"settings": settings.model_dump()})
    for number in range(rounds + 1):
        append_jsonl(run / "metrics.jsonl", {"event": "round", "round": number})
        write_checkpoint(run, number, {}, lambda folder: None)
    append_jsonl(run / "metrics.jsonl", {"event": "client", "round": rounds + 1})
    (run / "logs").mkdir()
    (run / "logs" / "run.log").write_text("the first part")
    return run


def test_the_plan_is_the_runs_own(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run", "train.steps=9", 'run.name=it\'s "mine"'.replace('"', ""))
    plan = resumed_plan(run, ["run.rounds=12", "stop.patience=2"])
    settings = plan.settings
    assert (settings.run.seed, settings.run.clients, settings.train.steps) == (7, 2, 9)
    assert (settings.run.rounds, settings.stop.patience) == (12, 2)
    assert settings.run.resume
    assert plan.overrides["run.folder"] == str(run)
    # The record ends with the last finished round, and the first part's log is kept.
    assert '"round": 4' not in (run / "metrics.jsonl").read_text()
    assert (run / "logs" / "part-1" / "run.log").read_text() == "the first part"


def test_a_second_resumption_has_a_folder_of_its_own_for_logs(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run")
    resumed_plan(run, [])
    (run / "logs" / "run.log").write_text("the second part")
    resumed_plan(run, [])
    assert (run / "logs" / "part-2" / "run.log").read_text() == "the second part"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["train.steps=5"], "--set train.steps with --resume; accepted: run.rounds, stop.*"),
        (["run.folder=x"], "--set run.folder with --resume"),
        (["run.rounds=2"], "run.rounds = 2 in a run that has done 3; accepted: at least 3"),
        (["stop.patience=-1"], "stop.patience = -1; accepted"),
        (["nonsense"], "--set nonsense with --resume"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_cut(
    tmp_path: Path, words: list[str], printed: str
) -> None:
    run = interrupted(tmp_path / "run")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError) as error:
        resumed_plan(run, words)
    assert printed in str(error.value)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_completed_run_is_refused(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run")
    write_json(run / "summary.json", {"status": "completed"})
    with pytest.raises(UserError, match="is completed, and its test rows have been used; acc"):
        resumed_plan(run, [])


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no whole checkpoint in"):
        resumed_plan(interrupted(tmp_path / "run", rounds=-1), [])


def test_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    run = interrupted(tmp_path / "run")
    with pytest.raises(UserError, match=r"run.clients = 2 on a deployment of 3 nodes"):
        resumed_plan(run, [], clients=3)
    assert resumed_plan(run, [], clients=2).settings.run.clients == 2


@pytest.mark.parametrize("words", [("--config", "x.toml"), ("--name", "x")])
def test_what_a_run_has_already_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert dispatch(["run", "--resume", str(tmp_path), *words]) == 2
    assert f"{words[0]} with --resume; accepted: a run goes on with" in capsys.readouterr().err


def test_no_such_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["run", "--resume", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "config.json").write_text(json.dumps([]))
    assert dispatch(["run", "--resume", str(tmp_path)]) == 2
    assert "no settings in" in capsys.readouterr().err


def test_the_user_is_told_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(plain=True, quiet=False)
    run = interrupted(tmp_path / "run")
    screen.finish(run, {}, Outcome(130, "interrupted"))
    assert f"llm-qfl run --resume {run}" in capsys.readouterr().out
    screen.finish(run, {}, Outcome(0, ""))
    assert "--resume" not in capsys.readouterr().out


def test_the_line_of_a_run_that_goes_on() -> None:
    event = {"round": 3, "clients": [{}, {}], "damaged": ["round-004"]}
    line = resumed_line(event)
    assert "after round 3; 2 clients are there; damaged, and passed over: round-004" in line
    assert "before its first round" in resumed_line({"round": 0, "clients": []})
