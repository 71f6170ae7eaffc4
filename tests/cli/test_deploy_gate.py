"""The gate in front of a SuperLink: calls of nodes pass as they are, nothing else does."""

from __future__ import annotations

import asyncio
import re
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

from core import SettingsError, UserError
from llm_qfl.cli.deploy.folder import FACTS, Options, make_deployment, read_door, read_facts
from llm_qfl.cli.deploy.gate import FLEET, gate_part, make_gate, passes
from llm_qfl.cli.deploy.parts import superlink_part
from llm_qfl.cli.processes import wait_for


def test_it_knows_what_supernodes_call() -> None:
    """Held against Flower's own client, should it call something new."""
    from flwr.supernode import fleet_http_client

    text = Path(fleet_http_client.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r'path="/v1/fleet/([a-z-]+)"', text))
    # A node with a registered key neither registers itself nor leaves for good.
    assert set(FLEET) == called - {"register-node", "unregister-node"}
    assert all(passes("POST", f"/v1/fleet/{name}".encode(), b"") for name in FLEET)


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
        ("POST", b"/v1/fleet/register-node", b""),
        ("GET", b"/v1/fleet/pull-messages", b""),
        ("POST", b"/health", b""),
        ("GET", b"/docs", b""),
        ("GET", b"/", b""),
    ],
)
def test_what_nodes_do_not_call_does_not_pass(method: str, path: bytes, query: bytes) -> None:
    assert not passes(method, path, query)


@given(st.binary(max_size=40), st.sampled_from([b"", b"/v1/fleet/", b"/v1/", b"/health"]))
def test_nothing_else_passes(text: bytes, before: bytes) -> None:
    path = before + text
    known = path.removeprefix(b"/v1/fleet/") in {name.encode() for name in FLEET}
    assert passes("POST", path, b"") == (path.startswith(b"/v1/fleet/") and known)
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
        headers |= {"set-cookie": "mine=1", "keep-alive": "timeout=5"}
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
        headers={
            **headers,
            **{"connection": "close", "te": "trailers", "cookie": "a=b", "forwarded": "for=x"},
            **{"x-forwarded-for": "9.9.9.9", "x-forwarded-proto": "http", "host": "evil/"},
        },
    )
    assert (answer.status_code, answer.content) == (418, b"onetwo" + body)
    assert answer.headers["x-answer"] == "yes"
    assert "keep-alive" not in answer.headers
    assert answer.headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    ((method, path, sent, told),) = inner.asked
    assert (method, path, sent) == ("POST", "/v1/fleet/push-object", body)
    assert {name: told[name] for name in headers} == headers
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["host"] == "inner"
    assert not {"te", "cookie", "forwarded", "x-forwarded-proto"} & set(told)


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


def test_no_caller_gets_anothers_cookie() -> None:
    inner = Inner()

    async def go() -> None:
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(inner.app), base_url="http://inner"
        )
        gate = httpx.ASGITransport(make_gate(client))
        async with client:
            for _ in range(2):  # each a caller of its own
                async with httpx.AsyncClient(transport=gate, base_url="http://gate") as outer:
                    await outer.post("/v1/fleet/get-run")

    asyncio.run(go())
    assert all("cookie" not in told for *_, told in inner.asked)
    assert len(inner.asked) == 2


def test_a_call_is_neither_endless_nor_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_qfl.cli.deploy.gate.MOST_BYTES", 1000)
    monkeypatch.setattr("llm_qfl.cli.deploy.gate.SILENCE", 0.1)
    inner = httpx.ASGITransport(Inner().app)

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(5)

    assert call(inner, "POST", "/v1/fleet/get-run", content=b"x" * 1000).status_code == 418
    assert call(inner, "POST", "/v1/fleet/get-run", content=b"x" * 1001).status_code == 413
    assert call(inner, "POST", "/v1/fleet/get-run", content=silent()).status_code == 408


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
        assert part.command[4:6] == ["--host", "127.0.0.1"]  # whatever others reach
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
        files[1].write_text(files[1].read_text().rsplit("=", 1)[0] + f"= {wrong}\n")
        with pytest.raises(UserError, match=r"control_port = .*; accepted: 0 to 65535"):
            read_facts(tmp_path / "fed")


def test_what_really_runs_decides_where_runs_go(tmp_path: Path) -> None:
    """`superlink.toml` may have been edited; a copy of control/ alone knows what was made."""
    make_deployment(tmp_path / "fed", Options(1, hosts=("hub.example.org",), port=9000))
    told = tmp_path / "fed" / "superlink" / "superlink.toml"
    told.write_text(told.read_text().replace("0.0.0.0", "127.0.0.1"))  # a proxy of one's own
    assert read_facts(tmp_path / "fed").control_port == 9000
    (tmp_path / "fed" / "control").rename(tmp_path / "control")
    assert read_facts(tmp_path / "control").control_port == 9001
    told.write_text(told.read_text() + "control_port = 9001\n")
    with pytest.raises(UserError, match="where only this machine reaches the SuperLink"):
        read_door(tmp_path / "fed" / "superlink")


@pytest.mark.parametrize(
    ("hosts", "called", "gated"),
    [
        ((), "127.0.0.1", False),
        (("localhost",), "localhost", False),
        (("127.0.0.1", "hub.example.org"), "hub.example.org", True),
        (("hub.example.org", "localhost"), "hub.example.org", True),
    ],
)
def test_names_of_this_machine_alone_need_no_gate(
    tmp_path: Path, hosts: tuple[str, ...], called: str, gated: bool
) -> None:
    make_deployment(tmp_path / "fed", Options(1, hosts=hosts, port=9000))
    assert read_facts(tmp_path / "fed").host == called
    door = read_door(tmp_path / "fed" / "superlink")
    assert door.gated == gated
    assert read_facts(tmp_path / "fed").control_port == door.control_port
    assert door.control_port == (9001 if gated else 9000)


def test_there_must_be_a_next_port(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--port 65535; accepted: 1 to 65534"):
        make_deployment(tmp_path / "fed", Options(1, port=65535))
