"""`llm-qfl cost` and `llm-qfl jobs`, each through the process that users start."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from llm_qfl.cli.cost import cost_lines
from quantum.engines.devices.base import Request
from quantum.engines.devices.job_store import JobStore
from tests.command import ROOT, llm_qfl


def call(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return llm_qfl(ROOT, *words, LLM_QFL_HOME=str(home), HOME=str(home))


@pytest.mark.slow
def test_cost_prints_a_table_or_json(tmp_path: Path) -> None:
    words = ["cost", "--set", "quantum.backend=aer:manila", "--set", "run.clients=2"]
    words += ["--set", "train.batch_rows=8", "--set", "data.train_rows=100"]
    table = call(*words, home=tmp_path)
    assert table.returncode == 0, table.stderr
    assert "two-qubit gates on fake_manila, depth" in table.stdout
    assert "QPU time: 2 s a job" in table.stdout
    assert "aer:manila" in table.stdout
    found = json.loads(call(*words, "--json", home=tmp_path).stdout)
    assert found["clients"][1]["step"]["circuits"] == 16
    assert "\n".join(cost_lines(found)) + "\n" == table.stdout


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = call("cost", "--set", "quantum.backend=ibm:least_busy", home=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no IBM Quantum account is saved on this machine" in done.stderr


def test_jobs_lists_and_cancels_what_is_open(tmp_path: Path) -> None:
    assert f"no open jobs in {tmp_path}" in call("jobs", home=tmp_path).stdout
    store = JobStore(tmp_path / "jobs.sqlite")
    request = Request((), 1.0, "a", "77/0", "train, round 1", circuits=8, shots=800)
    store.record_intent("a", request, "fake_manila")
    store.record_id("a", "job-1")
    listed = call("jobs", home=tmp_path)
    assert "fake_manila  job-1  submitted  8 circuits" in listed.stdout
    found = json.loads(call("jobs", "--json", home=tmp_path).stdout)
    assert [job["job_id"] for job in found["jobs"]] == ["job-1"]
    assert found["cancelled"] == 0
    refused = call("clean", "--yes", home=tmp_path)
    assert refused.returncode == 2
    assert "1 jobs of" in refused.stderr
    assert "no open jobs" in call("jobs", "--run", "78", home=tmp_path).stdout
    assert "1 of 1 cancelled" in call("jobs", "--cancel", home=tmp_path).stdout
    assert "no open jobs" in call("jobs", home=tmp_path).stdout


def test_a_broken_book_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_text("no database")
    done = call("jobs", home=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "jobs.sqlite" in done.stderr


def test_jobs_of_aer_that_a_killed_client_left_are_cancelled_here(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    request = Request((), 1.0, "a", "7/0", "train", circuits=8, shots=800)
    store.record_intent("a", request, "aer (ibm_x)")
    assert "1 of 1 cancelled" in call("jobs", "--cancel", home=tmp_path).stdout
    assert "no open jobs" in call("jobs", home=tmp_path).stdout
