"""A real deployment: a SuperLink and two SuperNodes as processes, a run on them, and the end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from core import read_jsonl
from llm_qfl.cli.flower import CONNECTION, Flwr, output
from llm_qfl.cli.processes import TAG, members, wait_for
from llm_qfl.cli.superlink import free_port, healthy
from tests import other_users
from tests.command import llm_qfl
from tests.faults.harness import begin
from tests.llm_qfl.deploy.test_gate import needs_nginx
from tests.other_users import Watch

SMALL = (
    "run.rounds=1",
    "data.train_rows=80",
    "data.test_rows=40",
    "data.server_rows=40",
    "llm.epochs=1",
    "train.steps=2",
)


def part(home: Path, name: str) -> dict[str, Any]:
    """Return the record of a server that `up` started."""
    file = home / "fed" / name / "home" / f"{name.partition('-')[0]}.json"
    record: dict[str, Any] = json.loads(file.read_text())
    return record


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
        port = part(tmp_path, "superlink")["port"]
        assert healthy(port, authority=tmp_path / "fed" / "control" / "ca.crt")
        assert not healthy(port)  # nothing answers without TLS
        status = llm_qfl(tmp_path, "deploy", "status", "fed")
        assert status.returncode == 0
        assert status.stdout.count("starts work") == 3
        watch = Watch(f"{TAG}={tag}")
        watch.look()
        assert watch.of("flower-supernode")
        assert watch.beyond_this_machine() == {}
        if os.getuid() == 0:
            for name in ("superlink", "node-0"):
                url = f"http://127.0.0.1:{part(tmp_path, name)['port']}/health"
                assert other_users.asks(url).startswith("refused")

        sets = [word for assignment in SMALL for word in ("--set", assignment)]
        ran = llm_qfl(tmp_path, "run", "--on", "fed", "--name", "deployed", *sets)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        for printed in ("north", "node-1", "pennylane:default.qubit (1)", "client 1: dna-tiny"):
            assert printed in ran.stdout
        folder = (tmp_path / "runs" / "latest").resolve()
        assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
        assert (folder / "report.html").exists()
        # A node whose key is revoked is out at once, and comes back as another with the new one.
        old = state["nodes"]
        revoked = llm_qfl(tmp_path, "deploy", "revoke", "fed", "node-1")
        assert revoked.returncode == 0, revoked.stdout + revoked.stderr

        def back() -> bool:
            nodes = json.loads((tmp_path / "fed" / "state.json").read_text())["nodes"]
            return nodes["node-1"] not in ("", old["node-1"])

        assert wait_for(back, 90.0)
        well = ("deploy", "status", "fed")
        assert wait_for(lambda: llm_qfl(tmp_path, *well).returncode == 0, 90.0)
        # Each site fine-tuned its own model, and keeps it for itself.
        for node in ("node-0", "node-1"):
            assert any((tmp_path / "fed" / node / "store" / "teachers").iterdir())
    finally:
        stopped = llm_qfl(tmp_path, "deploy", "stop", "fed")
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    assert not members(tag)
    assert not (tmp_path / "fed" / "state.json").exists()


@pytest.mark.slow
@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_three_nodes_aggregate_securely_under_their_own_keys(tmp_path: Path) -> None:
    """Each message may be answered by a new process: what the protocol keeps has to last."""
    made = (*SMALL, "run.rounds=2", "distill.weight=0", "agent.kind=all")
    words = (*made, "data.train_rows=120", "privacy.secure_aggregation=true")
    sets = [word for assignment in words for word in ("--set", assignment)]
    fed, tag = tmp_path / "fed", ""
    try:
        up = llm_qfl(tmp_path, "deploy", "up", "fed", "--nodes", "3", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        tag = json.loads((fed / "state.json").read_text())["tag"]
        ran = llm_qfl(tmp_path, "run", "--on", "fed", "--name", "secure", *sets)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        folder = (tmp_path / "runs" / "latest").resolve()
        rounds = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] == "round"]
        assert [event["groups"][0]["summed"] for event in rounds] == [[0, 1, 2]] * 2
        assert not [text for event in rounds for text in event["failures"]]
        assert "see first in this run" not in ran.stdout + ran.stderr  # they know each other
        done = [path.name.split("-")[0] for path in (fed / "node-1/store/secure").iterdir()]
        assert sorted(done) == ["answered"] * 3 + ["masked"] * 3  # moments and two rounds
        # The keys are the nodes' own: whoever is known by another one is refused.
        peers = fed / "node-2" / "peers"
        (peers / "node-0.pub").write_bytes((peers / "node-1.pub").read_bytes())
        refused = llm_qfl(tmp_path, "run", "--on", "fed", "--name", "middle", *sets)
        assert refused.returncode != 0
        assert "client 0 has another identity than privacy.peers has" in (
            refused.stdout + refused.stderr
        )
    finally:
        stopped = llm_qfl(tmp_path, "deploy", "stop", "fed")
    assert stopped.returncode == 0
    assert not members(tag)


@pytest.mark.slow
@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, and all of 127/8")
@needs_nginx
def test_each_part_by_itself_with_a_gate_for_nodes(tmp_path: Path) -> None:
    """As on machines of their own: nodes know another address than whoever submits runs."""
    port = free_port()
    made = llm_qfl(
        tmp_path,
        "deploy",
        "init",
        "fed",
        "--nodes",
        "2",
        "--host",
        "127.0.0.2",
        "--port",
        f"{port}",
    )
    assert made.returncode == 0, made.stderr
    fed = tmp_path / "fed"
    for name in ("superlink.toml", "gate.conf"):  # never beyond this machine
        written = fed / "superlink" / name
        written.write_text(written.read_text().replace("0.0.0.0", "127.0.0.2"))
    parts = [begin(tmp_path, "deploy", "superlink", "fed/superlink")]
    try:
        assert wait_for(lambda: "ready" in parts[0].said(), 120.0), parts[0].said()
        assert "only nodes may pass" in parts[0].said()
        parts += [begin(tmp_path, "deploy", "node", f"fed/node-{node}") for node in (0, 1)]
        assert wait_for(lambda: all("ready" in part.said() for part in parts), 120.0)
        status = llm_qfl(tmp_path, "deploy", "status", "fed/superlink")
        assert status.returncode == 0
        assert f"port {port})" in status.stdout

        authority = fed / "control" / "ca.crt"
        home = tmp_path / "flwr"
        (home / "empty").mkdir(parents=True)
        known = {**os.environ, "FLWR_HOME": str(home)}
        flwr = Flwr(flwr_program(), home, known, tmp_path / "flwr.log")
        for place, listed in (("127.0.0.1", port + 1), ("127.0.0.2", port)):
            flwr.connect(f"{place}:{listed}", authority)
            query = flwr.start("supernode", "list", CONNECTION, "--format", "json", errors=True)
            answer = output(query, 60.0)
            assert ('"success": true' in answer) == (place == "127.0.0.1"), answer
        sets = [word for assignment in SMALL for word in ("--set", assignment)]
        ran = llm_qfl(tmp_path, "run", "--on", "fed/control", *sets)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    finally:
        for place in ("fed/node-0", "fed/node-1", "fed/superlink"):
            llm_qfl(tmp_path, "deploy", "stop", place)
    assert [part.end() for part in parts] == [0, 0, 0]


def flwr_program() -> str:
    return str(Path(sys.executable).with_name("flwr"))
