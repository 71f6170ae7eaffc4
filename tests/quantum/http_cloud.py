"""IBM Quantum's side of the wire, on this machine: the real client speaks to it over HTTP.

Only what the client calls for backends, jobs, tags and sessions; jobs are computed exactly. Faults
come from scripts: `submit` has one for each submission, `end` one for each accepted job.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import qiskit_ibm_runtime.fake_provider as fakes
from qiskit.primitives import StatevectorEstimator
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime.api.clients.runtime import RuntimeClient
from qiskit_ibm_runtime.utils import RuntimeDecoder, RuntimeEncoder
from requests import PreparedRequest
from requests.auth import AuthBase

TOKEN = "Sup3rS3cret-t0ken_of-a-site-that-nobody-may-see"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:instance::"
NAME = "ibm_manila"
_MANILA = Path(str(fakes.__file__)).parent / "backends" / "manila"


class HttpCloud:
    """What the service keeps; `submit` and `end` are the scripts."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.submit: list[str] = []
        self.end: list[tuple[str, dict[str, Any]]] = []
        self.operational = True
        self.polls = 2
        self.url = ""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        parts = path.strip("/").split("/")
        if parts[0] == "backends":
            return self._backend(parts)
        if parts[0] == "instances":
            return {}
        if parts[0] == "sessions":
            return self._session(method, parts, body)
        if method == "POST" and len(parts) == 1:
            return self._accept(body)
        if len(parts) == 1:
            tags = set(query.get("tags", []))
            found = [self._told(n) for n, j in self.jobs.items() if tags <= set(j["tags"])]
            return {"jobs": found, "count": len(found)}
        if parts[1] not in self.jobs:
            return 404
        return self._job(parts)

    def _backend(self, parts: list[str]) -> Any:
        if len(parts) == 1:
            state = "online" if self.operational else "offline"
            return {
                "devices": [
                    {"name": NAME, "qubits": 5, "queue_length": 3, "status": {"name": state}}
                ]
            }
        if parts[2] == "status":
            return {"state": self.operational, "status": "active", "length_queue": 3}
        file = "conf_manila.json" if parts[2] == "configuration" else "props_manila.json"
        return {**json.loads((_MANILA / file).read_text()), "backend_name": NAME}

    def _session(self, method: str, parts: list[str], body: Any) -> Any:
        if method == "POST":
            name = f"session-{len(self.sessions)}"
            self.sessions[name] = {"mode": body["mode"], "open": True}
            return {"id": name}
        self.sessions[parts[1]]["open"] = False
        return {}

    def _accept(self, body: Any) -> Any:
        fault = self.submit.pop(0) if self.submit else ""
        if fault.isdigit():
            return int(fault)
        if fault == "lost":
            return None
        session = self.sessions.get(body.get("session_id", ""))
        if session is not None and not session["open"]:
            return 400, "The session is closed. Error code: 1217"
        name = f"job-{len(self.jobs)}"
        state, reason = self.end.pop(0) if self.end else ("Completed", {})
        self.jobs[name] = {**body, "polls": 0, "state": state, "reason": reason}
        return None if fault == "lost-after" else {"id": name, "backend": body["backend"]}

    def _job(self, parts: list[str]) -> Any:
        job = self.jobs[parts[1]]
        what = parts[2] if len(parts) > 2 else ""
        if what == "results":
            if job["state"] != "Completed":
                return "Traceback (most recent call last):\n  File x\nValueError: broken"
            return StatevectorEstimator(seed=0).run([p[:3] for p in job["params"]["pubs"]]).result()
        if what == "metrics":
            stamps = {"created": "2026-01-01T00:00:00.5Z", "running": "2026-01-01T00:01:00Z"}
            return {"timestamps": stamps, "usage": {"quantum_seconds": 2.5}}
        if what == "cancel":
            job["state"] = "Cancelled"
            return {}
        job["polls"] += 1
        return self._told(parts[1])

    def _told(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        state = (
            "Queued" if job["polls"] < self.polls and job["state"] != "Cancelled" else job["state"]
        )
        return {
            "id": name,
            "backend": job["backend"],
            "program": {"id": "estimator"},
            "tags": job["tags"],
            "state": {"status": state, **(job["reason"] if state == "Failed" else {})},
        }


def _handler(cloud: HttpCloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size), cls=RuntimeDecoder) if size else None
            url = urlsplit(self.path)
            answer = cloud.answer(self.command, url.path, parse_qs(url.query), body)
            if answer is None:  # hang up without a word
                self.close_connection = True
                return
            code, text = 200, ""
            if isinstance(answer, tuple):
                code, text = answer
            elif isinstance(answer, int):
                # As bad as can be: the service repeats what it was sent.
                code, text = answer, f"refused Authorization: {self.headers['Authorization']}"
            sent = text or (answer if isinstance(answer, str) else _json(answer))
            self.send_response(code)
            self.send_header("Content-Length", str(len(sent.encode())))
            self.end_headers()
            self.wfile.write(sent.encode())

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 (the library's names)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _json(answer: Any) -> str:
    return json.dumps(answer, cls=RuntimeEncoder)


@contextlib.contextmanager
def serve() -> Iterator[HttpCloud]:
    cloud = HttpCloud()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cloud))
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Bearer(AuthBase):
    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {TOKEN}"
        return request


class _Parameters:
    """Client parameters of an account that needs no sign-in."""

    instance = CRN

    def __init__(self, url: str) -> None:
        self._url = url

    def get_runtime_api_base_url(self) -> str:
        return self._url

    def get_auth_handler(self) -> AuthBase:
        return _Bearer()

    def connection_parameters(self) -> dict[str, Any]:
        return {"retries_total": 0}  # the client's own patience is not under test


def client_of(cloud: HttpCloud) -> Any:
    """Return a real QiskitRuntimeService, signed in already: its constructor only does that."""
    service: Any = QiskitRuntimeService.__new__(QiskitRuntimeService)
    client = RuntimeClient(_Parameters(cloud.url))
    service._account = type("Account", (), {"instance": CRN, "token": TOKEN})()
    service._channel = "ibm_quantum_platform"
    service._active_api_client = client
    service._api_clients = {CRN: client}
    service._default_instance = True
    for name in ("_all_instances", "_saved_instances", "_backends_list"):
        setattr(service, name, [])
    service._backend_instance_groups, service._backend_configs = [], {}
    return service
