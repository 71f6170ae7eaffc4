"""`llm-qfl run --ray`: clients on the nodes of a Ray cluster, placed where their data are."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import UserError, read_json
from llm_qfl.cli import cluster
from llm_qfl.cli.cluster import find_cluster
from llm_qfl.cli.processes import TAG, end_all, members
from llm_qfl.cli.superlink import free_port
from tests.command import llm_qfl, sets

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
"""Loopback addresses of two nodes of one machine; Ray takes 127.0.0.1 for the machine's own."""

CODE = """
import os
import llm_qfl

def rows():
    with open(os.environ["SITE_ROWS"]) as file:
        lines = [line.split(",") for line in file.read().split()]
    split = [line[0] for line in lines], [int(line[1]) for line in lines]
    return llm_qfl.Dataset(train=split, test=split, kind="dna", classes=["no", "yes"])
"""

SMALL = sets(
    *("run.clients=2", "run.rounds=1", "run.output=runs", "agent.kind=all", "train.steps=2"),
    *("distill.weight=0", "evaluation.mode=federated", "data.source=site_rows:rows"),
)


@pytest.mark.parametrize("address", ["here", "here:", ":80", "here:0", "here:http"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT of its head"):
        find_cluster(address, "", 2)


def test_an_address_where_nothing_answers_is_one_line() -> None:
    with pytest.raises(UserError, match="nothing answers there"):
        find_cluster(f"127.0.0.1:{free_port()}", "", 2)


def test_a_cluster_without_a_token_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "_check_answers", lambda address: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UserError, match="--ray without a token in the environment"):
        find_cluster("127.0.0.1:1", "", 2)


def test_a_refusal_is_one_line() -> None:
    versions = (
        "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.55.1\n"
        "    Python: 3.11.7\nThis process on node 127.0.0.2 was started with:\n"
        "    Ray: 9.9.9\n    Python: 3.12.1\n"
    )
    line = str(cluster._refusal("a:1", versions))
    assert "(Ray: 2.55.1, Python: 3.11.7) than here (Ray: 9.9.9, Python: 3.12.1)" in line
    token = "Unauthenticated: RPC error: InvalidAuthToken\nConnectionError: Failed to connect\n"
    assert "does not take this token" in str(cluster._refusal("a:1", token))
    other = str(cluster._refusal("a:1", "Traceback\nConnectionError: no raylet here\n"))
    assert "no raylet here" in other
    assert "\n" not in line + other


def test_a_resource_needs_a_cluster(tmp_path: Path) -> None:
    found = llm_qfl(tmp_path, "run", "--ray-resource", "rows")
    assert found.returncode == 2
    assert found.stderr.startswith("llm-qfl: --ray-resource without --ray")


Two = tuple[Path, str, dict[str, Any]]
"""A folder, the address of a cluster of two nodes, and the environment with its token."""


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Start two nodes, of which the second alone has the rows, and declares so."""
    folder, tag = tmp_path_factory.mktemp("ray"), uuid.uuid4().hex
    (folder / "site_rows.py").write_text(CODE)
    draw = random.Random(0)
    texts = ["".join(draw.choices("ACGT", k=40)) + "TATAAA" * (k % 2) for k in range(60)]
    rows = "".join(f"{text},{k % 2}\n" for k, text in enumerate(texts))
    (folder / "rows.csv").write_text(rows)
    token: dict[str, Any] = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    there = {**os.environ, **token, TAG: tag, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    there |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    address, short = f"{HEAD}:{free_port()}", Path(f"/tmp/two-{tag[:8]}")
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus", "1"]
    ray += [
        "--min-worker-port",
        "0",
        "--max-worker-port",
        "0",
        "--dashboard-agent-listen-port",
        "0",
    ]
    head = ["--head", "--port", address.rpartition(":")[2], "--node-ip-address", HEAD]
    head += ["--include-dashboard", "false", "--ray-client-server-port", str(free_port())]
    other = ["--address", address, "--node-ip-address", OTHER, "--resources", '{"rows": 1}']
    try:
        subprocess.run([*ray, *head, "--temp-dir", str(short)], env=there, check=True, timeout=120)
        has = {**there, "SITE_ROWS": str(folder / "rows.csv")}
        subprocess.run([*ray, *other], env=has, check=True, timeout=120)
        yield folder, address, token
    finally:
        end_all(members(tag), 10.0)
        subprocess.run(["rm", "-r", str(short)], check=False)


real = pytest.mark.skipif(
    "LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it"
)


@pytest.mark.slow
@real
def test_clients_run_where_their_rows_are(two_nodes: Two) -> None:
    folder, address, token = two_nodes
    given = ("run", "--ray", address, "--ray-resource", "rows", *SMALL)
    found = llm_qfl(folder, *given, **token)
    assert found.returncode == 0, found.stderr
    assert read_json(folder / "runs" / "latest" / "summary.json")["status"] == "completed"


@pytest.mark.slow
@real
def test_a_node_without_the_rows_is_named(two_nodes: Two) -> None:
    """Also that the cluster is whole after the run before, and a wrong token refused."""
    folder, address, token = two_nodes
    found = llm_qfl(folder, "run", "--ray", address, *SMALL, **token)
    assert found.returncode == 1
    assert HEAD in found.stderr
    assert OTHER not in found.stderr
    assert "site_rows.py" in found.stderr
    wrong = {**token, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    refused = llm_qfl(folder, "run", "--ray", address, *SMALL, **wrong)
    assert refused.returncode == 2
    assert "does not take this token" in refused.stderr
    nowhere = llm_qfl(folder, "run", "--ray", address, "--ray-resource", "x", *SMALL, **token)
    assert nowhere.returncode == 2
    assert "which none of the cluster's nodes" in nowhere.stderr
