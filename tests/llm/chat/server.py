"""An OpenAI-compatible server on loopback that misbehaves by script: real HTTP, no model."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-s3cret-that-nobody-may-see-0123456789"


ENDPOINT = ("agent.kind=endpoint", "agent.model=tiny", "train.steps=1", "train.max_steps=3")
"""Settings of a run that such a server directs."""


def answer(steps: dict[str, Any], **more: Any) -> str:
    """Write an answer, well-formed or not."""
    return json.dumps({"reason": "as I please", "steps": steps, "stop": False, **more})


FINE = answer({"0": 2, "1": 0, "2": 1})


class AgentServer:
    """What a server has seen; `script` has one behaviour for each question, then all is well."""

    def __init__(self) -> None:
        self.script: list[Behaviour] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.models = 200
        self.url = ""
        self.over = threading.Event()

    @property
    def prompts(self) -> list[str]:
        """Every request, as text."""
        return [json.dumps(body) for body in self.requests]


Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: AgentServer

    def do_GET(self) -> None:
        self._note()
        there = self.path.startswith("/v1/")
        self.reply(
            self.state.models if there else 404, {"object": "list", "data": [{"id": "tiny"}]}
        )

    def do_POST(self) -> None:
        self._note()
        size = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(size))
        if not self.path.startswith("/v1/") or not body:
            self.reply(400 if self.path.startswith("/v1/") else 404, {"error": "no messages"})
            return
        self.state.requests.append(body)
        behave = (
            self.state.script.pop(0)
            if self.state.script
            else replies(plain(self.state.requests[-1]))
        )
        with contextlib.suppress(OSError):  # the client has gone
            behave(self)

    def _note(self) -> None:
        self.state.headers.append({name.lower(): x for name, x in self.headers.items()})
        self.state.paths.append(self.path)

    def reply(self, status: int, body: Any, kind: str = "application/json", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving() -> Iterator[AgentServer]:
    """Serve on a free port until the context ends."""
    state = AgentServer()
    handler = type("OwnHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def plain(body: dict[str, Any], steps: int = 2) -> str:
    """Return a sound decision for a question: the clients are those of its table."""
    table = body["messages"][1]["content"].split("\nclient ")[1].split("\n\n")[0]
    clients = [line.split()[0] for line in table.splitlines()[1:]]
    return json.dumps(
        {"reason": "as always", "steps": dict.fromkeys(clients, steps), "stop": False}
    )


def completion(text: Any, finish: str = "stop", usage: Any = None) -> dict[str, Any]:
    """Return a chat completion's body."""
    spent = {"prompt_tokens": 100, "completion_tokens": 20} if usage is None else usage
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": spent}


def replies(text: Any, finish: str = "stop", usage: Any = None) -> Behaviour:
    return lambda at: at.reply(200, completion(text, finish, usage))


def sends(body: Any, status: int = 200, kind: str = "application/json", **more: str) -> Behaviour:
    return lambda at: at.reply(status, body, kind, **more)


def drips(text: str, pause: float = 0.02, headers: bool = False) -> Behaviour:
    """Send a whole answer byte by byte: of the body, or of the header already."""

    def behave(at: Handler) -> None:
        content = json.dumps(completion(text)).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        if not headers:
            at.wfile.write(head)
        for byte in (head if headers else b"") + content:
            if at.state.over.wait(pause):
                return
            at.wfile.write(bytes([byte]))

    return behave


def hangs(at: Handler) -> None:
    at.state.over.wait(10)
    at.close_connection = True


def closes(at: Handler) -> None:
    at.close_connection = True


def breaks_off(at: Handler) -> None:
    at.send_response(200)
    at.send_header("Content-Length", "1000")
    at.end_headers()
    at.wfile.write(b'{"choices": [')
    at.close_connection = True


def floods(at: Handler) -> None:
    """Send without end, as fast as it goes."""
    at.send_response(200)
    at.end_headers()
    end = time.monotonic() + 10
    while time.monotonic() < end and not at.state.over.is_set():
        at.wfile.write(b" " * 65536)
