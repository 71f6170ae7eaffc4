"""A node's client processes are forks: each like a process of its own, the spare one too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_qfl.cli.deploy import warm
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.parts import EXEC, command
from llm_qfl.cli.processes import wait_for

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere Flower's own program starts them"
)

DRIVER = """
import json, os, pathlib, random, sys, time
import numpy.random
import torch
from llm_qfl.cli.deploy import warm

warm.BUSY_POLL = warm.IDLE_POLL = 0.01
warm.SETTLE_SECONDS = warm.SPARE_SECONDS = 0.0
tasks, out = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
prepared = []

def prepare(bundle):
    (out / "spare").write_text(str(os.getpid()))
    if bundle == "broken":
        time.sleep(0.3)  # its message comes meanwhile
        raise ImportError("no such app")
    prepared.append(bundle)

def acquire():  # the next message comes when all is idle, and there is a spare if there can be one
    waits = starter.bundle and not starter.spare
    if starter.running or waits or (starter.spare and not (out / "spare").exists()):
        return warm.Task()
    if not tasks:
        print("all given", flush=True)
        if sys.argv[3] == "stay":
            return warm.Task()
        raise SystemExit
    if starter.spare:
        (out / "spare").unlink()
    return warm.Task(*tasks.pop(0))

torch.initial_seed()  # chosen when first asked for
starter = warm.Starter(prepare)
token = warm.serve(acquire, starter)
facts = {"pid": os.getpid(), "parent": os.getppid(), "prepared": prepared}
facts |= {"random": [random.random(), numpy.random.rand(), torch.initial_seed()]}
facts |= {"name": pathlib.Path("/proc/self/comm").read_text().strip()}
(out / token).write_text(json.dumps(facts))
"""


def start(folder: Path, *tasks: tuple[str, str], stay: bool = False) -> subprocess.Popen[str]:
    words = [json.dumps(tasks), str(folder), "stay" if stay else "leave"]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def served(folder: Path, *tasks: tuple[str, str]) -> list[dict[str, Any]]:
    """Have some tasks served, and return what each of their processes was like."""
    parent = start(folder, *tasks)
    _, errors = parent.communicate(timeout=120)
    assert parent.returncode == 0, errors
    found = [json.loads((folder / token).read_text()) for token, _ in tasks]
    assert all(facts["parent"] == parent.pid for facts in found)
    return found


def test_each_message_has_a_process_of_its_own(tmp_path: Path) -> None:
    found = served(tmp_path, ("a", "one"), ("b", "one"), ("c", "one"))
    assert len({facts["pid"] for facts in found}) == 3
    assert {facts["name"] for facts in found} == {"flwr-clientapp"}
    assert [facts["prepared"] for facts in found] == [
        [],
        ["one"],
        ["one"],
    ]  # the first has no spare


def test_no_two_draw_the_same_random_numbers(tmp_path: Path) -> None:
    found = served(tmp_path, ("a", "one"), ("b", "two"), ("c", "two"))
    drawn = [number for facts in found for number in facts["random"]]
    assert len(set(drawn)) == len(drawn) == 9


def test_a_spare_serves_its_own_bundle_alone(tmp_path: Path) -> None:
    found = served(tmp_path, ("a", "one"), ("b", "two"), ("c", "two"))
    assert [facts["prepared"] for facts in found] == [[], [], ["two"]]


def test_an_app_that_cannot_be_prepared_is_served_all_the_same(tmp_path: Path) -> None:
    found = served(tmp_path, ("a", "broken"), ("b", "broken"), ("c", "one"), ("d", "one"))
    assert [facts["prepared"] for facts in found] == [[], [], [], ["one"]]


def test_a_spare_that_was_killed_is_missed_by_nobody(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)  # as the system does when the process ends
    assert not warm.Spare(0, writes, "one").take("token")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writes)


def test_a_spare_ends_with_the_process_that_made_it(tmp_path: Path) -> None:
    parent, spares = start(tmp_path, ("a", "one"), stay=True), []
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "all given\n"
        spares = psutil.Process(parent.pid).children()
        (spare,) = spares
        assert spare.name() == "flwr-spare"  # no node at work
        parent.send_signal(signal.SIGKILL)
        assert wait_for(lambda: not spare.is_running() or spare.status() == "zombie", 20.0)
    finally:
        parent.kill()
        for process in spares:
            with contextlib.suppress(psutil.Error):
                process.kill()
        parent.communicate()


def test_a_nodes_client_processes_are_forks_and_a_superlinks_are_not(tmp_path: Path) -> None:
    make_deployment(tmp_path / "fed", Options(1))
    node = command(EXEC, tmp_path / "fed" / "node-0").words
    assert [Path(word).name for word in node[:3]] == [Path(sys.executable).name, "-P", "warm.py"]
    assert node[3] == "--runtime-api-address"
    assert "--root-certificates" not in node
    superlink = command(EXEC, tmp_path / "fed" / "superlink").words
    assert Path(superlink[0]).name == "flower-superexec"
    assert superlink[1] == "--root-certificates"
    assert node[-2] == superlink[-2] == "--superexec-auth-secret-file"


def test_flowers_program_takes_what_it_is_called_with() -> None:
    from flwr.supernode.cli.flwr_clientapp import _parse_args_run_flwr_clientapp

    parsed = _parse_args_run_flwr_clientapp().parse_args(warm.arguments("127.0.0.1:1", "t", 7))
    assert (parsed.runtime_api_address, parsed.token, parsed.parent_pid) == ("127.0.0.1:1", "t", 7)
    assert parsed.insecure
    assert not parsed.runtime_dependency_install
