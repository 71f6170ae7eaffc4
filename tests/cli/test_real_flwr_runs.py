"""The command as a user types it, with Flower's real simulation behind it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import command

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
    home = str(folder / "store")
    # Flower and we print emoji and dots that such a terminal cannot show: no reason to fail.
    environment = {"LLM_QFL_HOME": home, "COLUMNS": "100", "PYTHONIOENCODING": "latin-1"}
    return command.llm_qfl(folder, *words, **environment)


def sets(*assignments: str) -> list[str]:
    return [part for assignment in assignments for part in ("--set", assignment)]


def test_a_bad_key_is_one_line_and_nothing_starts(tmp_path: Path) -> None:
    found = llm_qfl(tmp_path, "run", *sets("run.roundz=2"))
    assert found.returncode == 2
    assert "did you mean 'run.rounds'?" in found.stderr
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_clients_two_rounds(tmp_path: Path) -> None:
    found = llm_qfl(tmp_path, "run", *sets(*SMALL, "run.name=small"))
    assert found.returncode == 0, found.stdout + found.stderr
    folder = (tmp_path / "runs" / "latest").resolve()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["rounds"] == 2
    assert summary["test"]["rows"] == 40
    for said in ("dna-demo (synthetic)", "QCNN su4, 4 qubits", "quantum model", str(folder)):
        assert said in found.stdout
    page = (folder / "report.html").read_text()
    assert "synthetic" in page
    assert "<svg" in page
    rounds = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["round"] for event in rounds if event["event"] == "round"] == [1, 2]


@pytest.mark.slow
def test_a_failing_client_is_told_and_exits_1(tmp_path: Path) -> None:
    rows = "\n".join(f"{'good' if i % 2 else 'bad'} day {i},{i % 2}" for i in range(40))
    (tmp_path / "site-0.csv").write_text(f"text,label\n{rows}\n")
    found = llm_qfl(
        tmp_path,
        "run",
        *sets(
            "run.clients=2",
            "data.source=csv",
            "data.per_site=true",
            "data.path=site-{client}.csv",
            "data.labels=0,1",
            "evaluation.mode=federated",
        ),
    )
    assert found.returncode == 1
    said = found.stdout + found.stderr
    assert "1 of 2 clients cannot start" in said
    assert "site-1.csv" in said
    assert "Traceback" not in said
    folder = (tmp_path / "runs" / "latest").resolve()
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_a_failing_server_is_told_and_exits_1(tmp_path: Path) -> None:
    # Two canonical 1-mers cannot fill four qubits: found out when the server fits the projection.
    found = llm_qfl(tmp_path, "run", *sets(*SMALL, "features.k=1"))
    assert found.returncode == 1
    said = found.stdout + found.stderr
    assert "quantum.qubits" in said
    assert "Traceback" not in said
