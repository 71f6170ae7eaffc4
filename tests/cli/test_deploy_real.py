"""A real deployment: a SuperLink and two SuperNodes as processes, a run on them, and the end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cli.processes import members, wait_for
from cli.superlink import healthy
from tests.command import llm_qfl

SMALL = (
    "run.rounds=1",
    "data.train_rows=80",
    "data.test_rows=40",
    "data.server_rows=40",
    "llm.epochs=1",
    "train.steps=2",
)


@pytest.mark.slow
@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_two_nodes_join_over_tls_run_and_leave(tmp_path: Path) -> None:
    other = "1:quantum.backend=pennylane:default.qubit"
    words = ("fed", "--nodes", "2", "--node-set", other, "--node-set", "0:site=north")
    tag = ""
    try:
        up = llm_qfl(tmp_path, "deploy", "up", *words, "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        assert up.stdout.count("joined as") == 2
        state = json.loads((tmp_path / "fed" / "state.json").read_text())
        tag = state["tag"]
        port = state["parts"]["superlink"]["port"]
        assert healthy(port, authority=tmp_path / "fed" / "control" / "ca.crt")
        assert not healthy(port)  # nothing answers without TLS
        assert llm_qfl(tmp_path, "deploy", "status", "fed").returncode == 0

        sets = [part for assignment in SMALL for part in ("--set", assignment)]
        ran = llm_qfl(tmp_path, "run", "--on", "fed", "--name", "deployed", *sets)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        for said in ("north", "node-1", "pennylane:default.qubit (1)", "client 1: dna-tiny"):
            assert said in ran.stdout
        folder = (tmp_path / "runs" / "latest").resolve()
        assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
        assert (folder / "report.html").exists()
        # A node whose key is revoked is out at once, and comes back as another with the new one.
        old = {name: part["node"] for name, part in state["parts"].items()}
        revoked = llm_qfl(tmp_path, "deploy", "revoke", "fed", "node-1")
        assert revoked.returncode == 0, revoked.stdout + revoked.stderr

        def back() -> bool:
            parts = json.loads((tmp_path / "fed" / "state.json").read_text())["parts"]
            return parts["node-1"]["node"] not in ("", old["node-1"])

        assert wait_for(back, 90.0)
        assert llm_qfl(tmp_path, "deploy", "status", "fed").returncode == 0
        # Each site fine-tuned its own model, and keeps it for itself.
        for node in ("node-0", "node-1"):
            assert any((tmp_path / "fed" / node / "store" / "teachers").iterdir())
    finally:
        stopped = llm_qfl(tmp_path, "deploy", "stop", "fed")
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    assert not members(tag)
    assert not (tmp_path / "fed" / "state.json").exists()
