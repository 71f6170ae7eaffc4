"""The gate in front of a SuperLink: calls of nodes pass as they are, nothing else does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cli.deploy_folder import FACTS, Options, make_deployment, read_door, read_facts
from cli.deploy_gate import gate_part, make_gate, passes
from cli.deploy_parts import superlink_part
from cli.processes import wait_for
from federation import SettingsError, UserError

ENDPOINTS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages"),
    *("push-messages", "get-run", "get-fab", "push-object", "pull-object"),
    "confirm-message-received",
)
"""What Flower 1.41's `flower-supernode` calls with a registered key."""


@pytest.mark.parametrize("name", ENDPOINTS)
def test_what_a_supernode_calls_passes(name: str) -> None:
    """Held against Flower's own client, should it call something new."""
    from flwr.supernode import fleet_http_client

    path = f"/v1/fleet/{name}"
    assert f'path="{path}"' in Path(fleet_http_client.__file__).read_text(encoding="utf-8")
    assert passes("POST", path.encode(), b"")


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", b"/v1/control/start-run", b""),
        ("POST", b"/v1/control/register-node", b""),
        ("POST", b"/v1/runtime/acquire-task", b""),
        ("POST", b"/v1/fleet/../control/start-run", b""),
        ("POST", b"/v1/fleet/%2e%2e/control/start-run", b""),
        ("POST", b"/v1/fleet/pull-messages/../../control/start-run", b""),
        ("POST", b"//v1/control/start-run", b""),
        ("POST", b"/v1/fleet/pull-messages", b"a=b"),
        ("POST", b"/v1/fleet/pull-messages\n", b""),
        ("POST", b"/v1/fleet/", b""),
        ("GET", b"/v1/fleet/pull-messages", b""),
        ("POST", b"/health", b""),
        ("GET", b"/docs", b""),
        ("GET", b"/", b""),
    ],
)
def test_what_nodes_do_not_call_does_not_pass(method: str, path: bytes, query: bytes) -> None:
    assert not passes(method, path, query)


@given(st.binary(max_size=40), st.sampled_from([b"", b"/v1/fleet/", b"/v1/", b"/health"]))
def test_only_plain_names_pass(text: bytes, before: bytes) -> None:
    path = before + text
    rest = path.removeprefix(b"/v1/fleet/")
    plain = rest != path and rest and all(c in b"abcdefghijklmnopqrstuvwxyz-" for c in rest)
    assert passes("POST", path, b"") == bool(plain)
    assert passes("GET", path, b"") == (path == b"/health")


class Inner:
    """A SuperLink's place: it keeps what it was asked and answers in parts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.app = Starlette(
            routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT", "DELETE"])]
        )

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        self.asked.append((request.method, request.url.path, body, dict(request.headers)))

        async def parts() -> AsyncIterator[bytes]:
            for part in (b"one", b"two", body):
                yield part

        headers = {"x-answer": "yes", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return StreamingResponse(parts(), 418, headers, media_type="application/x-protobuf")


def call(transport: httpx.AsyncBaseTransport, *request: Any, **more: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        inner = httpx.AsyncClient(transport=transport, base_url="http://inner")
        gate = httpx.ASGITransport(make_gate(inner))
        async with inner, httpx.AsyncClient(transport=gate, base_url="http://gate") as outer:
            return await outer.request(*request, **more)

    return asyncio.run(go())


def test_a_call_passes_as_it_is_both_ways() -> None:
    inner, body = Inner(), bytes(range(256)) * 5000
    headers = {"flwr-signature": "abc", "content-type": "application/x-protobuf"}
    answer = call(
        httpx.ASGITransport(inner.app),
        "POST",
        "/v1/fleet/push-object",
        content=body,
        headers={**headers, "connection": "close", "te": "trailers"},
    )
    assert (answer.status_code, answer.content) == (418, b"onetwo" + body)
    assert answer.headers["x-answer"] == "yes"
    assert answer.headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    ((method, path, sent, told),) = inner.asked
    assert (method, path, sent) == ("POST", "/v1/fleet/push-object", body)
    assert {name: told[name] for name in headers} == headers
    assert "te" not in told


def test_what_does_not_pass_never_reaches_the_superlink() -> None:
    inner = Inner()
    for method, path in (("POST", "/v1/control/start-run"), ("PUT", "/health"), ("GET", "/x")):
        refused = call(httpx.ASGITransport(inner.app), method, path, content=b"app")
        assert (refused.status_code, refused.text) == (403, "only SuperNodes are answered here")
    assert inner.asked == []


def test_a_superlink_that_is_away_is_a_bad_gateway() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    answer = call(httpx.MockTransport(away), "POST", "/v1/fleet/pull-messages")
    assert answer.status_code == 502


@pytest.fixture
def raw() -> Iterator[Callable[[bytes], bytes]]:
    """Serve a gate by the server that serves it in earnest; send it bytes as they are."""
    inner = Inner()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(inner.app), base_url="http://inner")
    config = uvicorn.Config(make_gate(client), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert wait_for(lambda: server.started, 20.0)
    port = server.servers[0].sockets[0].getsockname()[1]

    def send(target: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            head = b"POST " + target + b" HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n"
            connection.sendall(head + b"Content-Length: 0\r\n\r\n")
            said = b""
            while part := connection.recv(65536):
                said += part
        asked = b",".join(path.encode() for _, path, *_ in inner.asked)
        return said.split(b" ")[1] + b"|" + asked

    yield send
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/fleet/../control/start-run",
        b"/v1/fleet/%2e%2e/control/start-run",
        b"/v1/fleet/..%2fcontrol/start-run",
        b"/v1/fleet/..\\control",
        b"http://inner/v1/control/start-run",
        b"http://inner/v1/fleet/../control/start-run",
        b"//inner/v1/control/start-run",
        b"/v1/control/start-run?/v1/fleet/get-run",
        b"/v1/control/start-run;/v1/fleet/get-run",
        b"*",
    ],
)
def test_no_spelling_of_a_path_gets_by(raw: Callable[[bytes], bytes], target: bytes) -> None:
    status, asked = raw(target).split(b"|")
    assert status in (b"400", b"403", b"404")
    assert asked == b""


def test_the_server_passes_a_node(raw: Callable[[bytes], bytes]) -> None:
    assert raw(b"/v1/fleet/get-run") == b"418|/v1/fleet/get-run"


def test_only_a_superlink_that_others_reach_has_a_gate(tmp_path: Path) -> None:
    alone, reached = tmp_path / "alone", tmp_path / "reached"
    make_deployment(alone, Options(1))
    make_deployment(reached, Options(1, hosts=("hub.example.org",), port=9000))
    assert gate_part(alone / "superlink", "tag", 1234, tmp_path / "log") == []
    (gate,) = gate_part(reached / "superlink", "tag", 9001, tmp_path / "log")
    assert gate.port == 9000
    words = gate.command[gate.command.index("--bind") :]
    assert words == ["--bind", "0.0.0.0", "--port", "9000", "--inner", "9001"]
    programs = {"flower-superlink": "flower-superlink"}
    for place in (alone, reached):
        part = superlink_part(place / "superlink", programs, "tag", 0, tmp_path / "log")
        assert part.command[1:3] == ["--host", "127.0.0.1"]  # whatever others reach
    assert part.port == 9001
    assert read_facts(reached).control_port == 9001
    assert read_facts(alone).control_port == 0


def test_another_port_may_be_named_in_both_files(tmp_path: Path) -> None:
    make_deployment(tmp_path / "fed", Options(1, hosts=("hub.example.org",), port=9000))
    files = (tmp_path / "fed" / FACTS, tmp_path / "fed" / "superlink" / "superlink.toml")
    for path in files:
        path.write_text(f"{path.read_text()}control_port = 9500\n")
    assert read_facts(tmp_path / "fed").control_port == 9500
    assert read_door(tmp_path / "fed" / "superlink").control_port == 9500
    for wrong in ('"x"', "70000", "true"):
        files[0].write_text(files[0].read_text().rsplit("=", 1)[0] + f"= {wrong}\n")
        with pytest.raises(UserError, match=r"control_port = .*; accepted: 0 to 65535"):
            read_facts(tmp_path / "fed")


def test_there_must_be_a_next_port(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--port 65535; accepted: 1 to 65534"):
        make_deployment(tmp_path / "fed", Options(1, port=65535))
