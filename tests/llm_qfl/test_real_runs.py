"""The command as a user types it, with Flower's real simulation behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core import parse_run, read_json, read_jsonl
from core.storage.content_store import NAMES, OWNERS
from llm_qfl import run
from tests import command, other_users
from tests.command import sets
from tests.other_users import Watch
from tests.tables import TEXT, text_table

SMALL = (
    "run.clients=2",
    "run.rounds=2",
    "data.train_rows=80",
    "data.test_rows=40",
    "data.server_rows=40",
    "llm.epochs=1",
    "train.steps=3",
)


def llm_qfl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return command.llm_qfl(folder, *words, **home(folder))


def home(folder: Path) -> dict[str, Any]:
    # Flower and we print emoji and dots that such a terminal cannot show: no reason to fail.
    store = str(folder / "store")
    return {"LLM_QFL_HOME": store, "COLUMNS": "100", "PYTHONIOENCODING": "latin-1"}


Watched = tuple[subprocess.CompletedProcess[str], Watch, str]
"""A command that ended, where it listened, and what others got from its Ray."""


def watched(folder: Path, *words: str) -> Watched:
    """Run the command; also return where it listened, and what others got from its Ray."""
    mark = uuid.uuid4().hex
    with (folder / "printed").open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_qfl.cli", *words],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(command.ROOT),
                **home(folder),
                "MARK_OF_TEST": mark,
            },
            stdout=printed,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watch, got = Watch(f"MARK_OF_TEST={mark}"), ""
        try:
            for _ in watch.looks(process, 300):
                if not got and (stores := watch.of("/gcs_server")):
                    got = other_users.writes(stores[0])
        finally:
            process.kill()
    text = (folder / "printed").read_text()
    return subprocess.CompletedProcess(process.args, process.returncode, text, ""), watch, got


def test_a_bad_key_is_one_line_and_nothing_starts(tmp_path: Path) -> None:
    found = llm_qfl(tmp_path, "run", *sets("run.roundz=2"))
    assert found.returncode == 2
    assert "did you mean 'run.rounds'?" in found.stderr
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


TRACKERS = "tensorboard" if find_spec("tensorboard") else ""


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watched]:
    """Run a small simulation once; return its folder, and what was seen of it."""
    place = tmp_path_factory.mktemp("small")
    given = (*SMALL, "run.name=small", f"run.track={TRACKERS}")
    return place, watched(place, "run", *sets(*given))


@pytest.mark.slow
def test_two_clients_two_rounds(small_run: tuple[Path, Watched]) -> None:
    place, (found, watch, got) = small_run
    assert found.returncode == 0, found.stdout
    # Ray lets nobody write into its store without the run's token, and listens here alone.
    assert got.startswith("refused")
    assert "InvalidAuthToken" in got
    assert watch.of("/raylet ")
    assert watch.of("flower-superlink")
    assert watch.beyond_this_machine() == {}
    folder = (place / "runs" / "latest").resolve()
    # What the parts of a run make in a store, and nothing else, is what `clean` removes.
    assert {item.name for item in (place / "store").iterdir()} <= {*NAMES, OWNERS}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["rounds"] == 2
    assert summary["test"]["rows"] == 40
    for printed in ("dna-demo (synthetic)", "QCNN su4, 4 qubits", "quantum model", str(folder)):
        assert printed in found.stdout
    assert len(list(folder.glob("tensorboard/events.*"))) == bool(TRACKERS)
    page = (folder / "report.html").read_text()
    assert "synthetic" in page
    assert "<svg" in page
    rounds = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["round"] for event in rounds if event["event"] == "round"] == [1, 2]


def figures(folder: Path) -> list[Any]:
    """Return what a run computed and decided, without what it took."""
    events = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] in ("client", "round")]
    names = ("event", "round", "client", "loss", "accuracy", "llm_loss", "circuits", "steps")
    decided = read_jsonl(folder / "agent.jsonl")
    return [
        *[[str(event.get(name)) for name in names] for event in events],
        *[(line["participants"], line["steps"], line["reason"]) for line in decided],
        read_json(folder / "summary.json")["test"],
    ]


@pytest.mark.slow
def test_python_gives_its_figures_to_the_last_digit(
    small_run: tuple[Path, Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, with a store of its own: no Flower runtime, no teacher taken over."""
    monkeypatch.chdir(tmp_path)
    settings, _ = parse_run([], [*SMALL, "run.report=false", f"llm.store={tmp_path / 'store'}"])
    result = run(settings, quiet=True)
    assert result.folder.is_relative_to(tmp_path)
    assert figures(result.folder) == figures((small_run[0] / "runs" / "latest").resolve())


def damaged_model(folder: Path) -> str:
    """Make a model's folder that looks whole and holds no weights; only loading it tells."""
    place = folder / "model"
    place.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (place / name).write_text('{"model_type": "bert"}')
    return str(place)


@pytest.mark.slow
def test_a_failing_client_is_told_and_exits_1(tmp_path: Path) -> None:
    given = (*TEXT, f"data.path={text_table(tmp_path)}", f"llm.model={damaged_model(tmp_path)}")
    found = llm_qfl(tmp_path, "run", *sets("run.clients=2", *given))
    assert found.returncode == 1
    printed = found.stdout + found.stderr
    assert "2 of 2 clients cannot start" in printed
    assert "Traceback" not in printed
    folder = (tmp_path / "runs" / "latest").resolve()
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.slow
def test_a_failing_server_is_told_and_exits_1(tmp_path: Path) -> None:
    agent = ("agent.kind=llm", f"agent.model={damaged_model(tmp_path)}")
    found = llm_qfl(tmp_path, "run", *sets(*SMALL, *agent))
    assert found.returncode == 1
    printed = found.stdout + found.stderr
    assert "agent.model" in printed
    assert "Traceback" not in printed
