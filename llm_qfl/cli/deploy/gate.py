"""The SuperLink's door to other machines: what SuperNodes call passes, nothing else.

Flower 1.41 answers nodes, those who submit runs and its own parts on one port, and its open edition
asks no name of whoever submits a run. So a SuperLink that others are to reach listens on loopback,
and this process in front of it passes on what nodes call, and nothing else. Whether a node's key is
good is the SuperLink's to say.

``python -m llm_qfl.cli.deploy.gate FOLDER --bind ADDRESS --port N --inner N``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llm_qfl.cli.deploy.folder import read_door
from llm_qfl.cli.deploy.parts import GATE, Part, flower_home
from llm_qfl.cli.shipped import PACKAGES
from llm_qfl.cli.superlink import environment, healthy

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

FLEET = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages"),
    *("push-messages", "get-run", "get-fab", "push-object", "pull-object"),
    "confirm-message-received",
)
"""What Flower 1.41's SuperNodes with a registered key call."""

_PATHS = frozenset(f"/v1/fleet/{name}".encode() for name in FLEET)

_ASKED = {b"accept", b"accept-encoding", b"content-length", b"content-type", b"user-agent"}
"""Headers of a call that go on, besides Flower's own."""

_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
"""Headers that concern one connection only (RFC 9110, section 7.6.1)."""

MOST_BYTES = 64 * 2**20
"""Longest call: Flower sends arrays in pieces of 5 MB."""

SILENCE = 60.0
"""Longest silence of either side in a call, seconds; a node gives up earlier."""


def passes(method: str, raw_path: bytes, query: bytes) -> bool:
    """Whether a call is one that a SuperNode, or who looks after its health, makes."""
    if query:
        return False
    return (method == "GET" and raw_path == b"/health") or (method == "POST" and raw_path in _PATHS)


def asked_headers(headers: Sequence[tuple[bytes, bytes]], caller: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a call that go on: nobody but we says whose call it is."""
    kept = [(n, v) for n, v in headers if n.lower() in _ASKED or n.lower().startswith(b"flwr-")]
    return [*kept, (b"x-forwarded-for", caller.encode())]


class TooLongError(Exception):
    """A call has more bytes than any of a SuperNode's."""


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """Yield a call's body as it comes; neither for ever nor without end.

    Raises
    ------
    TooLongError, TimeoutError
        If it is longer than `MOST_BYTES`, or silent for longer than `SILENCE`.
    """
    parts, count = request.stream().__aiter__(), 0
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        count += len(part)
        if count > MOST_BYTES:
            raise TooLongError
        yield part


def make_gate(inner: httpx.AsyncClient) -> Starlette:
    """Return the gate in front of a SuperLink.

    Parameters
    ----------
    inner : httpx.AsyncClient
        Knows the SuperLink's address and certificate; closed with the gate.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with inner:
            yield

    async def answer(request: Request) -> Response:
        return await _pass_on(request, inner)

    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    return Starlette(routes=[Route("/{path:path}", answer, methods=every)], lifespan=lifespan)


async def _pass_on(request: Request, inner: httpx.AsyncClient) -> Response:
    import httpx
    from starlette.background import BackgroundTask
    from starlette.requests import ClientDisconnect
    from starlette.responses import PlainTextResponse, Response, StreamingResponse

    path, query = request.scope.get("raw_path", b""), request.scope["query_string"]
    if not passes(request.method, path, query):
        return PlainTextResponse("only SuperNodes are answered here", 403)
    caller = request.client.host if request.client else "unknown"
    headers = asked_headers(request.headers.raw, caller)
    content = body_of(request) if request.method == "POST" else None
    asked = inner.build_request(request.method, path.decode(), headers=headers, content=content)
    try:
        answer = await inner.send(asked, stream=True)
    except httpx.TransportError:  # a node tries again, as with any gateway
        return PlainTextResponse("the SuperLink does not answer", 502)
    except TooLongError:
        return PlainTextResponse(f"more than {MOST_BYTES:,} bytes", 413)
    except (ClientDisconnect, TimeoutError):  # whoever called has gone, or is silent
        return Response(status_code=408)
    inner.cookies.clear()  # of one caller never to another
    passed = StreamingResponse(
        answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose)
    )
    passed.raw_headers = [(n, v) for n, v in answer.headers.raw if n.lower() not in _HOP]
    return passed


def gate_part(folder: Path, tag: str, inner: int, log: Path) -> list[Part]:
    """Describe the gate of a folder's SuperLink; none where only this machine reaches it.

    Parameters
    ----------
    folder : Path
        ``superlink/`` of a deployment.
    tag, log
        As for `superlink_part`.
    inner : int
        The SuperLink's port on loopback.
    """
    door = read_door(folder)
    if not door.gated:
        return []
    command = [
        sys.executable,
        "-P",
        "-m",
        "llm_qfl.cli.deploy.gate",
        str(folder),
        "--bind",
        door.bind,
    ]
    command += ["--port", str(door.port), "--inner", str(inner)]
    env = environment(os.environ, flower_home(folder), tag, 1)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGES), env.get("PYTHONPATH"))))
    authority = folder / "ca.crt"

    def answers(at: int) -> bool:
        return healthy(at, door.here, authority)

    return [Part(GATE, folder, command, env, log, door.port, answers)]


def main(words: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM."""
    import httpx
    import uvicorn

    parser = argparse.ArgumentParser(prog="llm_qfl.cli.deploy.gate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--inner", type=int, required=True)
    chosen = parser.parse_args(words)
    inner = httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{chosen.inner}",
        verify=ssl.create_default_context(cafile=str(chosen.folder / "ca.crt")),
        timeout=httpx.Timeout(SILENCE, connect=5.0),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        trust_env=False,  # never through a proxy
    )
    _raise_limit()
    uvicorn.run(
        make_gate(inner),
        host=chosen.bind,
        port=chosen.port,
        ssl_certfile=str(chosen.folder / "server.crt"),
        ssl_keyfile=str(chosen.folder / "server.key"),
        ws="none",
        workers=1,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,  # the SuperLink's own, by which a node's clock is judged
        timeout_graceful_shutdown=5,
        log_level="info",
    )
    return 0


def _raise_limit() -> None:
    """Take as many descriptors as we may: a call has two."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
