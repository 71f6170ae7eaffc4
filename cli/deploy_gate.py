"""The SuperLink's door to other machines: what SuperNodes call passes, nothing else.

Flower 1.41 answers nodes, those who submit runs and its own parts on one port, and its open edition
asks no name of whoever submits a run. So a SuperLink that others are to reach listens on loopback,
and this process in front of it passes on the calls of nodes alone, each signed with a node's key.

``python -m cli.deploy_gate FOLDER --bind ADDRESS --port N --inner N``
"""

from __future__ import annotations

import argparse
import os
import re
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.deploy_folder import read_door
from cli.deploy_parts import GATE, Part, flower_home
from cli.superlink import CHECKOUT, environment, healthy

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_FLEET = re.compile(rb"/v1/fleet/[a-z-]+")
"""Paths of Flower's Fleet API, written as its SuperNodes write them and in no other way."""

_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
"""Headers that concern one connection only (RFC 9110, section 7.6.1)."""

PATIENCE = 300.0
"""Longest silence of the SuperLink in an answer, seconds."""


def passes(method: str, raw_path: bytes, query: bytes) -> bool:
    """Whether a call is one that a SuperNode, or who looks after its health, makes."""
    if query:
        return False
    return (method == "GET" and raw_path == b"/health") or (
        method == "POST" and _FLEET.fullmatch(raw_path) is not None
    )


def kept(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that go on to the other side."""
    return [(name, value) for name, value in headers if name.lower() not in _HOP]


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

    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(routes=[Route("/{path:path}", answer, methods=every)], lifespan=lifespan)


async def _pass_on(request: Request, inner: httpx.AsyncClient) -> Response:
    import httpx
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse, StreamingResponse

    path, query = request.scope.get("raw_path", b""), request.scope["query_string"]
    if not passes(request.method, path, query):
        return PlainTextResponse("only SuperNodes are answered here", 403)
    asked = inner.build_request(
        request.method,
        path.decode("ascii"),
        headers=kept(request.headers.raw),
        content=request.stream(),
    )
    try:
        answer = await inner.send(asked, stream=True)
    except httpx.TransportError:  # a node tries again, as with any gateway
        return PlainTextResponse("the SuperLink does not answer", 502)
    passed = StreamingResponse(
        answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose)
    )
    passed.raw_headers = kept(answer.headers.raw)
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
    command = [sys.executable, "-P", "-m", "cli.deploy_gate", str(folder), "--bind", door.bind]
    command += ["--port", str(door.port), "--inner", str(inner)]
    env = environment(os.environ, flower_home(folder), tag, 1)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CHECKOUT), env.get("PYTHONPATH"))))
    authority = folder / "ca.crt"

    def answers(at: int) -> bool:
        return healthy(at, door.here, authority)

    return [Part(GATE, folder, command, env, log, door.port, answers)]


def main(words: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM."""
    import httpx
    import uvicorn

    parser = argparse.ArgumentParser(prog="cli.deploy_gate", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--inner", type=int, required=True)
    chosen = parser.parse_args(words)
    inner = httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{chosen.inner}",
        verify=ssl.create_default_context(cafile=str(chosen.folder / "ca.crt")),
        timeout=httpx.Timeout(PATIENCE, connect=5.0),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        trust_env=False,  # never through a proxy
    )
    uvicorn.run(
        make_gate(inner),
        host=chosen.bind,
        port=chosen.port,
        ssl_certfile=str(chosen.folder / "server.crt"),
        ssl_keyfile=str(chosen.folder / "server.key"),
        ws="none",
        access_log=False,
        server_header=False,
        date_header=False,  # the SuperLink's own, by which a node's clock is judged
        log_level="info",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
