"""A Ray cluster of the user's own, on which `llm-qfl run --ray ADDRESS` simulates."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import UserError
from llm_qfl.cli.formatting import clip, one_line

ANSWER_SECONDS, CONNECT_SECONDS = 5.0, 45.0
"""Longest wait for the address to answer, and for the cluster to take us."""

FORM = "HOST:PORT of its head, as `ray start --head` prints it"


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that answers.

    Attributes
    ----------
    address : str
        ``host:port`` of its head.
    resource : str
        The Ray resource that a node must have for a client to run on it; ``{client}`` stands for
        the client's index. Empty: any node.
    cores : int
        Cores of its largest node.
    """

    address: str
    resource: str
    cores: int


def find_cluster(address: str, resource: str, clients: int) -> Cluster:
    """Look for a cluster and what a run needs of it.

    Parameters
    ----------
    address, resource
        As `Cluster` has them.
    clients : int
        Clients of the run.

    Raises
    ------
    UserError
        One line: no such cluster, no token or a wrong one, other versions, no node for a client.
    """
    _check_answers(address)
    _check_token()
    nodes = _nodes(address)
    for name in dict.fromkeys(resource.format(client=k) for k in range(clients) if resource):
        if not any(node["resources"].get(name) for node in nodes):
            hosts = ", ".join(str(node["host"]) for node in nodes)
            raise UserError(
                f"--ray-resource {name!r}, which none of the cluster's nodes ({hosts}) has",
                "a resource that a node declares",
                f"start the node with the data: ray start --resources '{{\"{name}\": 1}}'",
            )
    cores = max((int(node["resources"].get("CPU", 0)) for node in nodes), default=0)
    if not cores:
        raise UserError(f"the Ray cluster at {address} has no cores", "one or more", "add a node")
    return Cluster(address, resource, cores)


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--ray {address!r}", FORM, "give the cluster's address")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"--ray {address}: nothing answers there ({error.strerror or error})",
            FORM,
            "start the cluster, or give its address",
        ) from None


def _check_token() -> None:
    """Refuse a cluster without a token: whoever reaches such a one runs code as its user."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":  # his own decision
        return
    home = Path.home() / ".ray" / "auth_token"
    files = (Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or home), home)
    there = bool(os.environ.get("RAY_AUTH_TOKEN")) or any(file.is_file() for file in files)
    if mode != "token" or not there:
        raise UserError(
            "--ray without a token in the environment",
            "RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
            "start all nodes with one token (`ray get-auth-token --generate`); "
            "RAY_AUTH_MODE=disabled if the cluster has none",
        )


def _nodes(address: str) -> list[dict[str, Any]]:
    script = str(Path(__file__).with_name("ray_nodes.py"))
    environment = {**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", script, address],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=CONNECT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"--ray {address}: answers, but not as Ray does within {CONNECT_SECONDS:g} s",
            FORM,
            "give the port of the head (GCS), not of the dashboard or of Ray's client",
        ) from None
    if not done.returncode:
        nodes: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return nodes
    raise _refusal(address, done.stderr)


def _refusal(address: str, output: str) -> UserError:
    """Say in one line why a cluster does not take us."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if "ersion mismatch" in output:
        theirs = [line for line in lines if line.startswith(("Ray:", "Python:"))]
        return UserError(
            f"--ray {address}: another version there ({', '.join(theirs[:2])}) than here "
            f"({', '.join(theirs[2:4])})",
            "the same Ray and Python on every node",
            "install the same versions",
        )
    if any(word in output for word in ("uthenticat", "auth token", "AuthToken", "authorization")):
        return UserError(
            f"--ray {address}: the cluster does not take this token",
            "the token that its nodes were started with",
            "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
        )
    why = clip(one_line(lines[-1] if lines else "no reason given"), 200)
    return UserError(
        f"--ray {address}: cannot connect ({why})",
        "a cluster of which this machine is a node",
        f"join it first: ray start --address {address}",
    )
