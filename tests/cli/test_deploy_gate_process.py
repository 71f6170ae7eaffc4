"""The gate as it really runs: a process of its own, over TLS, in front of a server over TLS."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import llm_qfl.cli.deploy.commands
import llm_qfl.cli.deploy.remote
from llm_qfl.cli.deploy.folder import Facts, Options, make_deployment, read_facts
from llm_qfl.cli.deploy.gate import gate_part
from llm_qfl.cli.deploy.keys import make_authority, make_server
from llm_qfl.cli.deploy.parts import Part
from llm_qfl.cli.deploy.remote import Deployed
from llm_qfl.cli.deploy.serve import Supervisor, serve
from llm_qfl.cli.processes import wait_for
from llm_qfl.cli.superlink import free_port

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs /proc, and all of 127/8"
)
HOST = "127.0.0.2"


def gated(folder: Path) -> Path:
    """Make a deployment whose gate is at an address that is still this machine's own."""
    make_deployment(folder, Options(1, hosts=(HOST,), port=free_port()))
    told = folder / "superlink" / "superlink.toml"
    told.write_text(told.read_text().replace("0.0.0.0", HOST))
    return folder / "superlink"


@pytest.fixture
def inner() -> Iterator[Any]:
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    async def answer(request: Request) -> Response:
        body = await request.body()

        async def parts() -> AsyncIterator[bytes]:
            for part in (b"a" * 70_000, b"b", body):
                yield part
                await asyncio.sleep(0)

        return StreamingResponse(parts(), 200, {"x-seen": str(len(body))})

    def start(certificate: Path, key: Path) -> int:
        app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
        files = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        config = uvicorn.Config(app, port=0, log_level="error", ws="none", **files)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        assert wait_for(lambda: server.started, 20.0)
        return int(server.servers[0].sockets[0].getsockname()[1])

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


@pytest.fixture
def part_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")  # uvicorn's own: it must not be heeded
    started: list[Part] = []

    def start(superlink: Path, port: int) -> Part:
        (part,) = gate_part(superlink, "no-tag", port, tmp_path / "gate.log")
        part.start()
        started.append(part)
        return part

    yield start
    for part in started:
        if part.process is not None:
            part.process.kill()
            part.process.wait()


def test_it_passes_calls_outlives_their_callers_and_ends_when_told(
    tmp_path: Path, inner: Any, part_of: Any
) -> None:
    superlink = gated(tmp_path / "fed")
    part = part_of(superlink, inner(superlink / "server.crt", superlink / "server.key"))
    assert wait_for(part.ready, 30.0), part.said()
    context = ssl.create_default_context(cafile=str(superlink / "ca.crt"))
    with httpx.Client(verify=context, base_url=f"https://{HOST}:{part.port}") as node:
        said = node.post("/v1/fleet/push-object", content=b"x" * 300_000)
        assert (said.status_code, said.headers["x-seen"]) == (200, "300000")
        assert said.content == b"a" * 70_000 + b"b" + b"x" * 300_000
        assert node.post("/v1/control/start-run").status_code == 403
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{HOST}:{part.port}/health")  # never without TLS

    def upload() -> ssl.SSLSocket:
        raw = socket.create_connection((HOST, part.port))
        made = context.wrap_socket(raw, server_hostname=HOST)
        head = (
            f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\n"
        )
        made.sendall(head.encode() + b"half")
        return made

    leaves, stays = upload(), upload()
    time.sleep(0.5)
    leaves.close()
    assert wait_for(part.ready, 10.0)
    time.sleep(0.5)
    assert "Traceback" not in part.said()
    part.process.send_signal(signal.SIGTERM)
    assert wait_for(part.dead, 12.0)  # although one still uploads
    stays.close()


def test_a_superlink_of_another_authority_is_not_believed(
    tmp_path: Path, inner: Any, part_of: Any
) -> None:
    superlink, other = gated(tmp_path / "fed"), tmp_path / "other"
    other.mkdir()
    authority = other / "ca.crt", other / "ca.key"
    make_authority(*authority)
    make_server(authority, other / "server.crt", other / "server.key", [])
    part = part_of(superlink, inner(other / "server.crt", other / "server.key"))
    context = ssl.create_default_context(cafile=str(superlink / "ca.crt"))

    def said() -> int:
        try:
            return httpx.post(
                f"https://{HOST}:{part.port}/v1/fleet/get-run", verify=context
            ).status_code
        except httpx.TransportError:
            return 0

    assert wait_for(lambda: said() != 0, 30.0), part.said()
    assert said() == 502
    assert not part.ready()


def test_every_way_to_start_a_superlink_that_others_reach_has_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    superlink, seen = gated(tmp_path / "fed"), []

    def note(supervisor: Supervisor, ready: Any) -> int:
        seen.append([part.name for part in supervisor.parts])
        return 0

    monkeypatch.setattr(llm_qfl.cli.deploy.commands, "serve", note)
    assert llm_qfl.cli.deploy.commands.superlink(superlink) == 0
    assert llm_qfl.cli.deploy.commands.up(tmp_path / "fed", None, detach=False) == 0
    first = ["superlink", "superlink-exec", "gate"]
    assert seen == [first, [*first, "node-0", "node-0-exec"]]
    assert serve is not note


def test_revoked_keys_are_out_before_the_gate_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Part, "start", lambda part: seen.append(part.name))
    monkeypatch.setattr(Part, "ready", lambda part: True)
    monkeypatch.setattr("llm_qfl.cli.deploy.serve.admit", lambda *_: seen.append("admit") or 1)
    superlink = gated(tmp_path / "fed")
    first = Part("superlink", superlink, [], dict(os.environ), Path(), 9, lambda _: True)
    parts = [first, *gate_part(superlink, "tag", 9, tmp_path / "log")]
    Supervisor(superlink, parts, "tag", "flwr", lambda _: None).start()
    assert seen == ["superlink", "admit", "gate"]


def test_status_asks_the_gate_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated(tmp_path / "fed")
    parts = {name: {"pid": 1, "port": n, "node": ""} for n, name in ((8, "superlink"), (9, "gate"))}
    monkeypatch.setattr(
        llm_qfl.cli.deploy.commands, "read_state", lambda _: {"ready": True, "parts": parts}
    )
    asked: list[tuple[int, str, str]] = []

    def healthy(port: int, host: str, authority: Path | None) -> bool:
        asked.append((port, host, str(authority and authority.name)))
        return True

    monkeypatch.setattr(llm_qfl.cli.deploy.commands, "healthy", healthy)
    assert llm_qfl.cli.deploy.commands.status(tmp_path / "fed") == 0
    assert asked == [(8, "127.0.0.1", "ca.crt"), (9, HOST, "ca.crt")]


def test_runs_are_submitted_behind_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated(tmp_path / "fed")
    facts: Facts = read_facts(tmp_path / "fed")
    asked: list[tuple[int, str]] = []

    def healthy(port: int, host: str, authority: Path | None) -> bool:
        asked.append((port, host))
        return True

    monkeypatch.setattr(llm_qfl.cli.deploy.remote, "healthy", healthy)
    link = Deployed(facts, "flwr", tmp_path)
    link.start()
    told = (link.flwr.home / "config.toml").read_text()
    link.close()
    assert f'"127.0.0.1:{facts.port + 1}"' in told
    assert asked == [(facts.port + 1, "127.0.0.1")]
