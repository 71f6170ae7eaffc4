"""A real nginx with the configuration that we write: calls of nodes pass, nothing else does."""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from flwr.supercore.error import FlowerError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core import UserError, write_json
from llm_qfl.cli.deploy import parts
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.keys import make_authority, make_node_key, make_server, public_pem
from llm_qfl.cli.deploy.parts import GATE, command, write_gate_keys
from llm_qfl.cli.processes import wait_for

HAS_NGINX = bool(shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"))
needs_nginx = pytest.mark.skipif(not HAS_NGINX, reason="needs nginx: apt install nginx-light")
HOST = "127.0.0.2"
CONFIG = Path(parts.__file__).with_name("gate.conf").read_text()
CALLS = re.findall(r"POST /v1/fleet/([a-z-]+) HTTP", CONFIG)
HEADERS = [name.lower() for name in re.findall(r"proxy_set_header (\S+) \$http_", CONFIG)]
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
REFUSED = b"HTTP/1.1 403 Forbidden"


def free_pair() -> int:
    """Return a port for the gate whose next one, for the SuperLink, is free too."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def deployment(folder: Path) -> Path:
    """Make a deployment whose gate is at an address that is still this machine's own."""
    make_deployment(folder, Options(1, hosts=(HOST,), port=free_pair()))
    written = folder / "superlink" / "superlink.toml"
    written.write_text(written.read_text().replace("0.0.0.0", HOST))
    return folder / "superlink"


class Inner:
    """A server over TLS in the SuperLink's place, which notes what reaches it."""

    def __init__(self, port: int, certificates: Path) -> None:
        self.seen: list[tuple[str, str, bytes, dict[str, str]]] = []
        app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT"])])
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=port,
                log_level="error",
                ws="none",
                date_header=False,
                ssl_certfile=str(certificates / "server.crt"),
                ssl_keyfile=str(certificates / "server.key"),
            )
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert wait_for(lambda: self.server.started, 20.0)

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        path = request.scope["raw_path"].decode()
        self.seen.append((request.method, path, body, dict(request.headers)))

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"one", b"two", body):
                yield piece

        headers = {"date": DATE, "x-answer": "yes", "content-type": "application/x-protobuf"}
        return StreamingResponse(pieces(), 418, headers)


def signed(key: bytes) -> dict[str, str]:
    """Return the header by which a node shows its key."""
    return {"flwr-public-key": base64.b64encode(key).decode()}


class Gate:
    """A running nginx, and a server behind it unless that is to be away."""

    def __init__(self, folder: Path, certificates: Path | None, changes: dict[str, str]) -> None:
        made = command(GATE, folder)
        config = folder / "gate.conf"
        for directive, value in changes.items():
            text, count = re.subn(rf"{directive} \w+;", f"{directive} {value};", config.read_text())
            assert count == 1, directive
            config.write_text(text)
        self.inner = Inner(made.port + 1, certificates) if certificates else None
        self.folder, self.port = folder, made.port
        self.context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        url = f"https://{HOST}:{self.port}"
        self.key = public_pem(folder / "nodes" / "node-0.pub")
        self.client = httpx.Client(
            verify=self.context, base_url=url, headers=signed(self.key), trust_env=False
        )
        self.process = subprocess.Popen(made.words, env=made.environment)
        record = {"pid": self.process.pid, "port": made.port}
        record["start"] = psutil.Process(self.process.pid).create_time()
        write_json(folder / "home" / "gate.json", record)
        assert wait_for(self.is_up, 20.0)

    def is_up(self) -> bool:
        try:
            return self.client.get("/").status_code == 403
        except httpx.TransportError:
            return False

    def head(self, length: int | str) -> bytes:
        """Return the head of a call with a body."""
        lines = {"Host": "gate", **signed(self.key)}
        lines |= (
            {"Transfer-Encoding": "chunked"}
            if length == "chunked"
            else {"Content-Length": str(length)}
        )
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST /v1/fleet/push-object HTTP/1.1\r\n{text}\r\n".encode()

    def connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection((HOST, self.port), timeout=20)
        return self.context.wrap_socket(raw, server_hostname=HOST)

    def send(self, data: bytes) -> bytes:
        """Send bytes as they are; return the first line of the answer."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
                return connection.recv(65536).split(b"\r\n")[0]
            except (ConnectionError, ssl.SSLError):
                return b""

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)
        if self.inner:
            self.inner.server.should_exit = True
            self.inner.thread.join()


Starter = Callable[..., Gate]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    gates: list[Gate] = []

    def start(
        changes: dict[str, str] | None = None,
        certificates: Path | None = None,
        *,
        away: bool = False,
    ) -> Gate:
        folder = deployment(tmp_path_factory.mktemp("gate") / "fed")
        gates.append(Gate(folder, None if away else certificates or folder, changes or {}))
        return gates[-1]

    yield start
    for gate in gates:
        gate.close()


@pytest.fixture(scope="module")
def gate(start: Starter) -> Gate:
    return start()


@pytest.fixture
def seen(gate: Gate) -> list[tuple[str, str, bytes, dict[str, str]]]:
    assert gate.inner is not None
    gate.inner.seen.clear()
    return gate.inner.seen


Seen = list[tuple[str, str, bytes, dict[str, str]]]


def test_the_calls_and_headers_are_those_of_flowers_nodes() -> None:
    """Held against Flower's own client, should it call something new."""
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant
    from flwr.supernode import fleet_http_client

    text = Path(fleet_http_client.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r'path="/v1/fleet/([a-z-]+)"', text))
    # A node with a registered key neither registers itself nor leaves for good.
    assert set(CALLS) == called - {"register-node", "unregister-node"}
    sent = {TIMESTAMP_HEADER, constant.FLEET_HTTP_PUBLIC_KEY_HEADER}
    sent |= {constant.FLEET_HTTP_SIGNATURE_HEADER, constant.FLWR_PACKAGE_NAME_METADATA_KEY}
    sent |= {constant.FLWR_PACKAGE_VERSION_METADATA_KEY, constant.FLWR_COMPONENT_NAME_METADATA_KEY}
    assert {name for name in HEADERS if name.startswith("flwr-")} == sent


@needs_nginx
def test_every_call_of_a_node_passes(gate: Gate, seen: Seen) -> None:
    for name in CALLS:
        assert gate.client.post(f"/v1/fleet/{name}").status_code == 418
    assert gate.client.get("/health").status_code == 418
    assert [path for _, path, *_ in seen] == [*(f"/v1/fleet/{name}" for name in CALLS), "/health"]


@needs_nginx
@pytest.mark.parametrize(
    "line",
    [
        *("POST /v1/control/start-run", "POST /v1/control/register-node", "PUT /health"),
        *("POST /v1/runtime/acquire-task", "POST /v1/fleet/register-node", "POST /v1/fleet/"),
        *("GET /v1/fleet/pull-messages", "POST /health", "GET /docs", "GET /", "POST *"),
        *("POST /v1/fleet/../control/start-run", "POST /v1/fleet/%2e%2e/control/start-run"),
        *("POST /v1/control/start-run/../../fleet/get-run", "POST //v1/fleet/get-run"),
        *("POST /v1/fleet/..%2fcontrol/start-run", "POST /v1/fleet/..\\control"),
        *("POST http://inner/v1/control/start-run", "POST //inner/v1/control/start-run"),
        *("POST /v1/control/start-run?/v1/fleet/get-run", "POST /v1/fleet/get-run?a=b"),
        *("POST /v1/control/start-run;/v1/fleet/get-run", "POST /V1/fleet/get-run"),
        *("POST /v1/fleet/get-run/", "POST /v1/fleet/get-run%00", "POST /v1/fleet/get-run#x"),
        *("post /v1/fleet/get-run", "POST  /v1/fleet/get-run /x", "CONNECT inner:1"),
    ],
)
def test_nothing_else_passes_however_it_is_spelled(gate: Gate, seen: Seen, line: str) -> None:
    head = gate.head(0).replace(b"POST /v1/fleet/push-object", line.encode())
    answer = gate.send(head)
    assert answer == REFUSED or re.match(rb"HTTP/1.1 40[05]|$", answer), answer
    assert seen == []


@needs_nginx
def test_only_registered_keys_pass_and_a_change_counts_at_once(
    tmp_path: Path, start: Starter
) -> None:
    gate = start()
    assert gate.inner is not None
    make_node_key(tmp_path / "key", tmp_path / "node-1.pub")
    new = signed(public_pem(tmp_path / "node-1.pub"))
    for headers in (new, {"flwr-public-key": ""}, {"flwr-public-key": "x" * 5000}):
        refused = gate.client.post("/v1/fleet/push-object", content=b"body", headers=headers)
        assert refused.status_code == 401
        refused = gate.client.post("/v1/fleet/activate-node", headers=headers)
        assert refused.status_code == 412  # as of a SuperLink, so that the node says why it ends
        error: Any = FlowerError.from_json(refused.text)
        assert error.message == "Failed to activate SuperNode."
    assert gate.inner.seen == []
    shutil.copy(tmp_path / "node-1.pub", gate.folder / "nodes")
    (gate.folder / "revoked").mkdir()
    shutil.move(gate.folder / "nodes" / "node-0.pub", gate.folder / "revoked" / "node-0.pub")
    write_gate_keys(gate.folder)

    def answers() -> list[int]:
        calls = (gate.client.post("/v1/fleet/get-run", headers=key) for key in (None, new))
        return [call.status_code for call in calls]

    assert wait_for(lambda: answers() == [401, 418], 10.0)


@needs_nginx
def test_a_refusal_says_why(gate: Gate) -> None:
    refused = gate.client.post("/v1/control/start-run", content=b"app")
    assert (refused.status_code, refused.text) == (403, "only SuperNodes are answered here")


@needs_nginx
def test_a_call_passes_unchanged_both_ways(gate: Gate, seen: Seen) -> None:
    body = bytes(range(256)) * 20_000  # 5 MB, a piece of Flower's
    flower = {name: name.upper() for name in HEADERS}
    flower |= {
        **signed(gate.key),
        "content-type": "application/x-protobuf",
        "accept-encoding": "gzip",
    }
    other = {"te": "trailers", "cookie": "a=b", "forwarded": "for=x", "authorization": "x"}
    other |= {"x-forwarded-for": "9.9.9.9", "x-forwarded-proto": "http", "host": "evil"}
    answer = gate.client.post("/v1/fleet/push-object", content=body, headers={**flower, **other})
    assert (answer.status_code, answer.content) == (418, b"onetwo" + body)
    assert answer.headers["x-answer"] == "yes"
    assert answer.headers["date"] == DATE  # a node compares its clock with the SuperLink's
    ((method, path, sent, headers),) = seen
    assert (method, path, sent) == ("POST", "/v1/fleet/push-object", body)
    assert {name: headers[name] for name in flower} == flower
    assert headers["x-forwarded-for"].startswith("127.")
    assert headers["host"] == "localhost"
    assert not {"te", "cookie", "forwarded", "authorization", "x-forwarded-proto"} & set(headers)


@needs_nginx
def test_a_body_in_chunks_passes(gate: Gate, seen: Seen) -> None:
    sent = gate.client.post("/v1/fleet/push-object", content=iter([b"a" * 9, b"b"]))
    assert sent.status_code == 418
    assert seen[0][2] == b"a" * 9 + b"b"


@needs_nginx
def test_a_body_or_header_that_is_too_large_is_refused(gate: Gate, seen: Seen) -> None:
    assert b" 413 " in gate.send(gate.head(59_000_000))
    long = gate.head(1).replace(b"Host", b"X-Long: " + b"x" * 60_000 + b"\r\nHost")
    assert gate.send(long) in (b"HTTP/1.1 400 Bad Request", b"")
    chunks = gate.head("chunked") + b"1100000\r\n" + b"x" * 0x1100000
    assert gate.send(chunks)[:12] in (b"HTTP/1.1 413", b"")
    assert seen == []


@needs_nginx
def test_nothing_is_answered_without_tls(gate: Gate, seen: Seen) -> None:
    answer = httpx.get(f"http://{HOST}:{gate.port}/health", trust_env=False)
    assert answer.status_code == 400
    assert seen == []


@needs_nginx
def test_a_superlink_that_is_away_is_a_bad_gateway(start: Starter) -> None:
    assert start(away=True).client.post("/v1/fleet/get-run").status_code == 502


@needs_nginx
def test_a_superlink_of_another_authority_is_not_believed(tmp_path: Path, start: Starter) -> None:
    authority = tmp_path / "ca.crt", tmp_path / "ca.key"
    make_authority(*authority)
    make_server(authority, tmp_path / "server.crt", tmp_path / "server.key", [])
    assert start(certificates=tmp_path).client.post("/v1/fleet/get-run").status_code == 502


@needs_nginx
def test_slow_callers_are_cut_off_and_others_get_through(start: Starter) -> None:
    """Bodies and headers that stop halfway, and idle connections: the SuperLink sees none."""
    times = {"client_body_timeout": "1s", "client_header_timeout": "1s"}
    gate = start({**times, "limit_conn address": "300"})
    assert gate.inner is not None
    slow = [gate.connect() for _ in range(150)]
    for connection in slow[:100]:
        connection.sendall(gate.head(1000) + b"half")
    for connection in slow[100:125]:
        connection.sendall(b"POST /v1/fleet/pu")
    assert gate.client.post("/v1/fleet/get-run").status_code == 418
    assert [path for _, path, *_ in gate.inner.seen] == ["/v1/fleet/get-run"]
    began = time.monotonic()
    for connection in slow:
        with connection, contextlib.suppress(ConnectionError):
            assert connection.recv(100)[:12] in (b"", b"HTTP/1.1 408")
    assert time.monotonic() - began < 10.0


@needs_nginx
def test_one_address_has_a_bounded_number_of_calls(start: Starter) -> None:
    gate = start({"limit_conn address": "2"})
    held = [gate.connect(), gate.connect()]
    for connection in held:
        connection.sendall(gate.head(9))
    assert wait_for(lambda: gate.client.post("/v1/fleet/get-run").status_code == 503, 10.0)
    for connection in held:
        connection.close()
    assert wait_for(lambda: gate.client.post("/v1/fleet/get-run").status_code == 418, 10.0)


@needs_nginx
def test_it_ends_with_its_workers_although_one_still_uploads(start: Starter) -> None:
    gate = start()
    workers = psutil.Process(gate.process.pid).children()
    with gate.connect() as connection:
        connection.sendall(gate.head(1000) + b"half")
        gate.process.terminate()
        assert gate.process.wait(20) == 0
        assert wait_for(lambda: not any(worker.is_running() for worker in workers), 10.0)


def test_the_configuration_and_superlink_toml_must_agree(tmp_path: Path) -> None:
    folder = deployment(tmp_path / "fed")
    command(GATE, folder) if HAS_NGINX else pytest.skip("needs nginx")
    written = folder / "superlink.toml"
    written.write_text(written.read_text().replace(HOST, "127.0.0.3"))
    with pytest.raises(UserError, match=r"does not listen on 127.0.0.3:\d+ and call 127.0.0.1:\d+"):
        command(GATE, folder)
    (folder / "gate.conf").unlink()
    command(GATE, folder)
    assert " 127.0.0.3:" in (folder / "gate.conf").read_text()


def test_without_nginx_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"'nginx' is missing.*apt install nginx-light"):
        command(GATE, deployment(tmp_path / "fed"))
