"""Flower's servers answer their own user alone, and what starts their apps is watched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_qfl.cli.deploy.parts import Part, outside_work
from llm_qfl.cli.deploy.superexec import asks_for_work, exec_part
from llm_qfl.cli.owner_only import same_user
from llm_qfl.cli.processes import wait_for
from llm_qfl.cli.superlink import free_port, healthy, owner_only
from tests import strangers
from tests.cli.conftest import Fakes

SERVER = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
"""

CONNECTS = """
import socket, sys, time
held = socket.create_connection(sys.argv[2].split(":"))
time.sleep(60)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """A server of uvicorn's as Flower runs one, started as we start Flower's."""
    program, port = tmp_path / "server.py", free_port()
    program.write_text(SERVER)
    process = subprocess.Popen([*owner_only(str(program)), str(port)], stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: healthy(port), 60.0)
        yield port
    finally:
        process.kill()
        process.wait()


@strangers.needs_root
def test_a_server_answers_its_own_user_and_no_other(server: int) -> None:
    url = f"http://127.0.0.1:{server}/"
    assert strangers.asks(url).startswith("refused")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(url, timeout=10).read() == b"hello"


def test_a_connection_is_looked_up_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            held, there = listener.accept()
            here = held.getsockname()
            assert same_user(here, there)
            assert not same_user(here, (there[0], there[1] - 1))
            monkeypatch.setattr("llm_qfl.cli.owner_only.TABLE", Path("/nowhere"))  # as on macOS
            assert same_user(here, there)
            assert not same_user(here, (there[0], there[1] - 1))
        monkeypatch.undo()
        assert not same_user(here, there)  # who connected has left
        held.close()


def test_the_secret_of_a_server_is_its_owners_and_stays(tmp_path: Path) -> None:
    words = outside_work(tmp_path)
    secret = Path(words[-1])
    assert words[:2] == ["--isolation", "process"]
    assert secret.stat().st_mode & 0o777 == 0o600
    known = secret.read_bytes()
    assert len(known) == 32
    assert outside_work(tmp_path) == words
    assert secret.read_bytes() == known


def test_a_process_asks_for_work_if_it_runs_and_is_connected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen([sys.executable, "-c", CONNECTS, "", f"127.0.0.1:{port}"])
        try:
            assert wait_for(lambda: asks_for_work(process.pid, port), 60.0)
            assert not asks_for_work(process.pid, port + 1)
            os.kill(process.pid, signal.SIGSTOP)
            assert wait_for(lambda: not asks_for_work(process.pid, port), 60.0)
        finally:
            process.kill()
        process.wait()
        assert not asks_for_work(process.pid, port)


@pytest.fixture
def node(fakes: Fakes) -> Part:
    """A node that listens where its command says."""
    code = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[2]))); "
        "print('SuperNode ID: 77', flush=True); time.sleep(60)"
    )
    part = fakes.part(code)
    part.port = free_port()
    part.command += ["--port", str(part.port), *outside_work(fakes.folder)]
    return part


def test_what_starts_a_nodes_apps_comes_back_and_follows_it(
    fakes: Fakes, node: Part, impatient: None
) -> None:
    program = fakes.folder / "exec.py"
    program.write_text(f"#!{sys.executable}\n{CONNECTS}")
    program.chmod(0o755)
    starter = exec_part(node, str(program))
    supervisor = fakes.supervisor(node, starter)

    def well() -> bool:
        supervisor.look(time.monotonic())
        return node.ready() and starter.ready() and not supervisor._again

    try:
        supervisor.start()
        assert starter.ready()
        starter.process.kill()  # type: ignore[union-attr]
        starter.process.wait()  # type: ignore[union-attr]
        supervisor.look(time.monotonic())
        assert "node-0-exec    ended (killed by signal 9); starting it again" in fakes.said[-1]
        assert wait_for(well, 60.0)
        node.process.kill()  # type: ignore[union-attr]
        node.process.wait()  # type: ignore[union-attr]
        node.move()
        assert wait_for(well, 60.0)
        assert starter.port == node.port
        assert sum("node-0-exec    is back" in said for said in fakes.said) == 2
    finally:
        supervisor.close(grace=3.0)
