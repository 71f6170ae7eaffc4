"""`llm_qfl.study`: cells and seeds as runs side by side, finished ones found again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import llm_qfl
from core import read_json
from core.formatting import figure
from llm_qfl.studies.lines import study_lines
from tests.command import ROOT
from tests.llm_qfl.test_python_runs import QUICK


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


QUICKER: dict[str, Any] = {**QUICK, "rounds": 1}
ONE: dict[str, Any] = {**QUICKER, "jobs": 1}
"""In this process, one after the other."""

SCORES = ["accuracy", "macro_recall", "macro_f1", "loss", "validation_loss", "circuits", "rounds"]


@pytest.mark.slow
def test_a_study_is_a_run_a_cell_and_seed_and_repeats_none_that_is_complete() -> None:
    given: dict[str, Any] = {"grid": {"train.steps": [1, 3]}, "seeds": [4, 5], **ONE}
    del given["train"]
    found = llm_qfl.study(**given)
    table = found.table
    assert list(table["train.steps"]) == [1, 1, 3, 3]
    assert list(table["seed"]) == [4, 5, 4, 5]
    assert set(table["status"]) == {"completed"}
    for row in table.to_dict("records"):
        result = llm_qfl.read(row["folder"])
        assert result.settings["run.seed"] == row["seed"]
        assert result.settings["train.steps"] == row["train.steps"]
        for score in ("accuracy", "macro_recall", "macro_f1", "loss"):
            assert result.summary["test"][score] == row[score]
        spent = result.summary["ledger"]
        assert spent["circuits"] == row["circuits"]
        assert spent["bytes_up"] + spent["bytes_down"] == row["bytes"]
        slowest = result.ledger.assign(busy=lambda e: e["train_seconds"] + e["llm_seconds"])
        assert slowest.groupby("round")["busy"].max().sum() == pytest.approx(row["seconds"])
    alone = llm_qfl.run(**{**QUICKER, "train": {"steps": 3}}, seed=5)
    assert alone.summary["test"]["loss"] == table["loss"].iloc[3]
    times = [path.stat().st_mtime_ns for path in sorted(Path("runs/study").rglob("*.jsonl"))]
    assert llm_qfl.study(**given).table.equals(table)
    more = llm_qfl.study(**{**given, "seeds": [4, 5, 6]})
    assert len(more.table) == 6
    after = [path.stat().st_mtime_ns for path in sorted(Path("runs/study").rglob("*.jsonl"))]
    assert set(times) < set(after)
    assert list(found.summary["runs"]) == [2, 2]
    assert "accuracy_gain" in found._repr_html_()
    assert llm_qfl.read_study().table.equals(more.table)


@pytest.mark.slow
def test_side_by_side_gives_the_same_digits_and_a_killed_worker_is_one_failed_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {"grid": {"agent": ["all", "random"]}, "seeds": 2, **QUICKER}
    del given["agent"]
    killer = threading.Thread(target=_kill_a_worker, args=(Path("runs/many"),), daemon=True)
    killer.start()
    many = llm_qfl.study(**given, jobs=2, folder="runs/many")
    killer.join()
    assert sorted(many.table["status"]) == ["completed", "completed", "completed", "failed"]
    failed = many.table[many.table["status"] == "failed"]
    assert "its process was ended by SIGKILL; workers.log" in failed["error"].iloc[0]
    assert many.summary["failed"].sum() == 1
    many = llm_qfl.study(**given, jobs=2, folder="runs/many")  # what is missing: one run
    one = llm_qfl.study(**given, jobs=1, folder="runs/one")
    assert many.table[SCORES].equals(one.table[SCORES])
    assert set(many.table["status"]) == {"completed"}
    many_curves, one_curves = many._record.curves, one._record.curves
    for mine, other in zip(many_curves, one_curves, strict=True):
        assert mine[["accuracy", "loss"]].equals(other[["accuracy", "loss"]])


def _kill_a_worker(folder: Path) -> None:
    """Kill the first worker that has begun a run."""
    while not any(folder.glob("*/metrics.jsonl")):
        time.sleep(0.02)
    workers = [p for p in psutil.Process().children() if "llm_qfl.studies.worker" in p.cmdline()]
    begun = sorted(folder.glob("*/metrics.jsonl"))[0].parent
    for worker in workers:
        if any(str(begun.resolve()) in file.path for file in worker.open_files()):
            worker.kill()
            return
    workers[0].kill()


def test_a_failed_cell_is_a_row_and_is_tried_again() -> None:
    given: dict[str, Any] = {"grid": {"stop.circuits": [1, 0]}, **ONE}
    found = llm_qfl.study(**given)
    assert list(found.table["status"]) == ["failed", "completed"]
    assert "first round" in found.table["error"].iloc[0]
    assert list(found.summary["runs"]) == [0, 1]
    assert list(found.summary["failed"]) == [1, 0]
    again = llm_qfl.study(**given).table
    assert again["folder"].iloc[0] == found.table["folder"].iloc[0] + "-2"
    assert again["folder"].iloc[1] == found.table["folder"].iloc[1]


def test_a_digest_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_qfl.configuration import configure
    from llm_qfl.studies.running import digest

    settings = configure(None, {"agent": "all"}).settings
    assert digest(settings, "", None) == digest(settings, "", 0.9)
    assert len(digest(settings, "", None)) == 10
    assert digest(settings, "a:b", 0.8) != digest(settings, "a:b", 0.9)
    before = digest(settings, "", None)
    assert before != digest(configure(None, {}).settings, "", None)
    monkeypatch.setattr("llm_qfl.cli.app.version", lambda: "0.0.1")
    assert before != digest(settings, "", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": {"agent": "all"}}, r"grid['agent'] = 'all'; accepted: a list of values"),
        ({"grid": {"agent": []}}, r"grid['agent'] = []; accepted: a list of values"),
        ({"grid": {}}, "grid = {}; accepted: settings with lists of values"),
        ({"grid": {"mine": {"a": 3}}}, "grid['mine']['a'] = 3; accepted: a table of settings"),
        ({"grid": {"seed": [1]}}, "run.seed in a study; accepted: seeds = [...]"),
        ({"grid": {"a": {"b": {"run.seed": 1}}}}, "run.seed in a study; accepted: seeds"),
        ({"grid": {"rounds": [1]}, "seed": 4}, "run.seed in a study; accepted: seeds"),
        ({"grid": {"run.folder": ["x"]}}, "run.folder in a grid or search; accepted: settings of"),
        ({"grid": {"rounds": [1]}, "rounds": 2}, "run.rounds, of which the study has values"),
        ({"grid": {3: [1]}}, "the axis 3; accepted: text"),
        ({"grid": {"rounds": [1]}, "only": ["x"]}, "only = ['x']; accepted: pairs of an axis"),
        ({"grid": {"rounds": [1]}, "folder": 3}, "folder = 3; accepted: a folder's path"),
        ({"grid": {"rounds": [1]}, "seeds": [-1]}, "seeds = [-1]; accepted: a list of whole"),
        ({"grid": {"rounds": [1]}, "seeds": [2**31]}, "accepted: a list of whole numbers from 0"),
        ({"grid": {"rounds": [1]}, "target": True}, "target = True; accepted: a validation"),
        ({"grid": {"loss": {"a": {}}}}, "the axis 'loss'; accepted: a name that no figure has"),
        ({"grid": {"rounds": [1], "a": {"b": {"run.rounds": 2}}}}, "two axes set run.rounds"),
        ({"grid": {"rounds": [1]}, "seeds": 0}, "seeds = 0; accepted: a list of whole numbers"),
        ({"grid": {"rounds": [1]}, "seeds": []}, "seeds = []; accepted: a list of whole numbers"),
        ({"grid": {"rounds": [1]}, "seeds": [1, 1]}, "seeds = [1, 1]; accepted: a list of whole"),
        ({"grid": {"rounds": [1]}, "seeds": [1, "x"]}, "seeds = [1, 'x']; accepted: a list of"),
        ({"grid": {"rounds": [1, 1]}}, "the cell (1,) twice; accepted: each once"),
        ({"grid": {"rounds": [1]}, "reference": 3}, "accepted: values of the axes (run.rounds: 1)"),
        ({"grid": {"rounds": [1]}, "target": 90}, "target = 90; accepted: a validation accuracy"),
        ({"grid": {"rounds": [1]}, "jobs": 0}, "jobs = 0; accepted: a whole number from 1"),
        ({"grid": {"rounds": [1]}, "runner": "x"}, "runner = 'x'; accepted: module:function"),
        ({"grid": {"rounds": [1, "x"]}}, "run.rounds = 'x'; accepted: a whole number"),
        ({"grid": {"rounds": [1], "qubits": [4, 99]}}, "quantum.qubits = 99"),
        ({}, "config = None without a grid; accepted: a grid, a search, or a study's file"),
    ],
)
def test_mistakes_are_one_line_before_the_first_run(given: dict[str, Any], message: str) -> None:
    with pytest.raises(llm_qfl.UserError, match=re.escape(message)):
        llm_qfl.study(**given)
    assert not Path("runs").exists()


def test_an_axis_of_groups_may_have_the_name_of_a_section() -> None:
    groups = {"few": {"data": {"train_rows": 60}}, "a csv": {"data": {"source": "csv"}}}
    with pytest.raises(llm_qfl.UserError, match=r"^data a csv: "):
        llm_qfl.study(grid={"data": groups})


def test_a_folder_that_is_a_file_is_one_line() -> None:
    Path("file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(llm_qfl.UserError, match="no study can be written to 'file"):
            llm_qfl.study(**ONE, grid={"features.clip": [2.0]}, folder=folder)


STUDY = (ROOT / "examples" / "study.toml").read_text("utf-8")


def test_the_page_quotes_the_example_exactly() -> None:
    page = (ROOT / "docs" / "studies.md").read_text("utf-8")
    assert f"```toml\n{STUDY}```" in page
    assert len(STUDY.splitlines()) <= 30


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_qfl.cli", "study", *words], capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_study_file_is_run_by_the_command_and_read_by_the_library() -> None:
    Path("cells.toml").write_text(STUDY)
    printed = command("cells.toml", "--seeds", "3", "4", "--jobs", "1", "--json")
    assert printed.returncode == 0, printed.stderr
    said = json.loads(printed.stdout)
    assert [cell["agent"] for cell in said["cells"]] == ["everybody", "half"]
    assert said["failed"] == []
    found = llm_qfl.study("cells.toml", seeds=[3, 4])
    assert found.folder == Path("runs/cells")
    assert list(found.summary["accuracy"]) == [cell["accuracy"] for cell in said["cells"]]
    assert list(found.table["seed"]) == [3, 4, 3, 4]
    runs = [llm_qfl.read(folder) for folder in found.table["folder"]]
    assert [run.settings["agent.kind"] for run in runs] == ["all", "all", "random", "random"]
    # What has no effect in one cell counts in the others.
    assert runs[2].settings["agent.fraction"] == 0.5
    accuracies = [run.summary["validation"]["accuracy"] for run in runs]
    assert list(found.table["validation.accuracy"]) == accuracies
    ends = [run.rounds["accuracy"].mean() - 0.01 for run in runs[:2]]
    assert list(found.table["target"]) == pytest.approx(ends * 2)
    assert found.table["reached"].iloc[:2].all()
    saved = found.costs.set_index(["agent", "cost"])
    assert saved.loc[("half", "circuits"), "saved"] == pytest.approx(0.5)
    text = command("cells.toml", "--seeds", "3", "4").stdout
    assert "half: 2 runs" in text
    assert "runs/cells/study.html" in text
    for name in ("table.csv", "table.json", "cells.csv", "cells.json", "study.html"):
        assert Path("runs/cells", name).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sedes = 2", "cells.toml: unknown key 'sedes'; accepted: config, set, grid,"),
        ("folder = 3", "cells.toml: folder = 3; accepted: text"),
        ("[search]", "cells.toml: both of [grid] and [search]; accepted: one"),
        ("", "unknown setting 'run.round'"),
        ("= no", "'cells.toml' is not TOML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(change: str, message: str) -> None:
    place = len(STUDY) if change == "[search]" else STUDY.index("[set]")
    text = f"{STUDY[:place]}{change}\n{STUDY[place:]}"
    Path("cells.toml").write_text(text.replace("rounds = 2", "round = 2") if not change else text)
    with pytest.raises(llm_qfl.UserError, match=re.escape(message)) as error:
        llm_qfl.study("cells.toml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line_of_the_command() -> None:
    said = command("nowhere.toml")
    assert said.returncode == 2
    assert said.stderr.startswith("llm-qfl: no study 'nowhere.toml'")
    assert said.stderr.count("\n") == 1


RUNNER = """
import llm_qfl

def run_cell(settings, target, callbacks):
    if settings.run.seed == 2:
        raise llm_qfl.UserError("seed 2 is not wanted")
    with open("told.txt", "a") as file:
        file.write(f"{settings.agent.kind} {target}\\n")
    llm_qfl.run(settings, quiet=True)
"""


def test_a_runner_runs_cells_and_is_told_what_the_reference_ended_with() -> None:
    Path("my_runner.py").write_text(RUNNER)
    given: dict[str, Any] = {"grid": {"agent": ["all", "random"]}, "target": "reference", **ONE}
    del given["agent"]
    found = llm_qfl.study(**given, seeds=[1, 2], runner="my_runner:run_cell", margin=0.25)
    ended = llm_qfl.read(found.table["folder"].iloc[0]).rounds["accuracy"].iloc[-1]
    assert Path("told.txt").read_text().splitlines() == ["all None", f"random {ended - 0.25}"]
    assert list(found.table["status"]) == ["completed", "failed"] * 2
    assert list(found.table["error"])[1] == "seed 2 is not wanted"
    assert list(found.table["error"])[3] == (
        "the reference of this seed has failed, so there is no target"
    )


def test_objects_and_callbacks_keep_runs_in_this_process(capsys: Any) -> None:
    seen: list[int] = []
    given: dict[str, Any] = {"grid": {"agent": ["all", "random"]}, "jobs": 2, **QUICKER}
    del given["agent"]
    llm_qfl.study(**given, callbacks=lambda figures: seen.append(figures["round"]))
    assert seen == [1, 1]
    line = "llm-qfl: 2 of 2 runs have callbacks: one after the other, in this process"
    assert line in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_study_goes_on_and_leaves_no_process() -> None:
    Path("cells.toml").write_text(f"jobs = 2\n{STUDY}")
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_qfl.cli", "study", "cells.toml"], stderr=subprocess.PIPE
    )
    file = Path("runs/cells/study.json")
    while "completed" not in [run["status"] for run in read_json(file).get("runs", ())]:
        assert process.poll() is None
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted; the same command goes on" in said
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left
    done = [run for run in read_json(file)["runs"] if run["status"] == "completed"]
    before = [Path("runs/cells", run["folder"], "summary.json") for run in done]
    assert len(llm_qfl.read_study("runs/cells").table) == 4
    stamps = {p: os.stat(p).st_mtime_ns for p in before}
    found = llm_qfl.study("cells.toml")
    assert set(found.table["status"]) == {"completed"}
    assert {p: os.stat(p).st_mtime_ns for p in before} == stamps


SEARCH = """
jobs = 1
[set]
run = { clients = 2, rounds = 1 }
data = { train_rows = 60, test_rows = 40, server_rows = 40 }
distill.weight = 0.0
[search]
trials = 2
[search.ranges]
train.learning_rate = { low = 0.05, high = 0.3, log = true }
train.steps = { low = 2, high = 3 }
quantum.block = ["su4", "paper"]
"""


@pytest.mark.slow
def test_a_search_looks_at_the_test_rows_of_its_best_trial_alone() -> None:
    pytest.importorskip("optuna")
    Path("find.toml").write_text(SEARCH)
    found = llm_qfl.study("find.toml")
    trials, winner = found.table.iloc[:-1], found.table.iloc[-1]
    assert list(trials["trial"]) == ["0", "1"]
    assert trials["accuracy"].isna().all()
    for folder in trials["folder"]:
        result = llm_qfl.read(folder)
        assert (result.summary["test"], result.summary["baselines"]) == ({}, {})
        assert result.report().path.exists()
    best = trials["validation_loss"].idxmin()
    assert winner["trial"] == f"{best}, tested"
    lines = study_lines(found)
    assert lines.count(f"  validation loss {figure(winner['validation_loss'])}") == 2
    assert f"{best}, tested, {winner['train.learning_rate']:.4g}, " in lines
    assert winner["validation_loss"] == trials["validation_loss"][best]
    assert winner["accuracy"] == llm_qfl.read(winner["folder"]).summary["test"]["accuracy"]
    assert read_json(Path("runs/find/study.json"))["best"]["trial"] == best
    again = llm_qfl.study("find.toml")
    assert again.table.equals(found.table)


def test_one_seed_proposes_the_same_trials_whatever_was_interrupted() -> None:
    pytest.importorskip("optuna")
    from llm_qfl.studies.search import Search, _distribution

    spaces = {"train.steps": _distribution("train.steps", {"low": 1, "high": 100})}
    spaces["train.learning_rate"] = _distribution("train.learning_rate", {"low": 0.1, "high": 0.9})
    requested = {"config": None, "seeds": 1, "figures": (), "runner": "", "folder": "here"}
    searches = [Search(requested, {}, spaces, seed) for seed in (7, 7, 8)]
    first, same, other = ([one.propose(k, []) for k in range(4)] for one in searches)
    assert first == same
    assert first != other
    assert len({str(values) for values in first}) == 4
    losses = [values["train.steps"] / 100 for values in first] * 5
    known = [searches[0]._finished(v, loss) for v, loss in zip(first * 5, losses, strict=True)]
    later = [one.propose(20, known) for one in searches]
    assert later[0] == later[1] != searches[0].propose(20, [])


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({}, "search: trials = None; accepted: a whole number from 1"),
        ({"trials": 2, "rangs": {}}, "search: unknown key 'rangs'; accepted: trials, seed, ranges"),
        ({"trials": 2, "ranges": {}}, "search: ranges = {}; accepted: settings with"),
        ({"trials": 2, "ranges": {"steps": 3}}, "search: train.steps = 3; accepted: a list of"),
        ({"trials": 2, "ranges": {"steps": {"low": 3, "high": 1}}}, "search: train.steps = {'low'"),
        ({"trials": 2, "ranges": {"steps": [5, 0]}}, "train.steps = 0; accepted:"),
        (3, "search = 3; accepted: a dict of trials, seed, ranges"),
        ({"trials": 2, "ranges": {"seed": [5]}}, "run.seed in a study; accepted: seeds"),
        ({"trials": 2, "ranges": {"stepz": [5]}}, "unknown setting 'stepz'"),
    ],
)
def test_mistakes_of_a_search_are_one_line(search: Any, message: str) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(llm_qfl.UserError, match=re.escape(message)):
        llm_qfl.study(search=search)
    with pytest.raises(llm_qfl.UserError, match="target with a search"):
        llm_qfl.study(search={"trials": 1, "ranges": {"steps": [5]}}, target=0.5)
    assert not Path("runs").exists()
