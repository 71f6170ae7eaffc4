"""Flower's servers answer their own user alone, and what starts their apps is watched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_qfl.cli.deploy.diagnosis import asks_for_work
from llm_qfl.cli.deploy.parts import exec_secret
from llm_qfl.cli.owner_only import same_user
from llm_qfl.cli.processes import wait_for
from llm_qfl.cli.superlink import free_port, healthy, owner_only
from tests import other_users

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


@other_users.needs_root
def test_a_server_answers_its_own_user_and_no_other(server: int) -> None:
    url = f"http://127.0.0.1:{server}/"
    assert other_users.asks(url).startswith("refused")
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
    words = exec_secret(tmp_path)
    secret = Path(words[-1])
    assert words[:2] == ["--isolation", "process"]
    assert secret.stat().st_mode & 0o777 == 0o600
    known = secret.read_bytes()
    assert len(known) == 32
    assert exec_secret(tmp_path) == words
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
