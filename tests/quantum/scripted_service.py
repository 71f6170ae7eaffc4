"""A stand-in for the service: its cloud outlives the client, its connection breaks by script.

`Cloud` is what IBM would keep: jobs, tags, bills. `ScriptedService` connects one client to it;
"restarting the client" is a new one (and a new runner, and a new store on the same file) over the
same cloud. A script is a list of faults for each kind of call, taken one a call; then all is well.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import requests
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError, IBMRuntimeError

from quantum.engines.devices.base import Request

_ANGLE = Parameter("a")
_CIRCUIT = QuantumCircuit(1)
_CIRCUIT.ry(_ANGLE, 0)
_Z = SparsePauliOp("Z")


class KilledError(BaseException):
    """kill -9: nothing of ours may run after it, so nothing of ours may catch it."""


def make_request(key: str, rows: int = 3, **changes: Any) -> Request:
    angles = np.linspace(0.0, 1.0, rows)[:, None]
    given: dict[str, Any] = {
        "pubs": ((_CIRCUIT, _Z, angles), (_CIRCUIT, _Z, angles[:1])),
        "precision": 1 / 32,
        "key": key,
        "run": "run-1",
        "label": f"round 1, {key}",
        "circuits": rows + 1,
        "shots": 1024 * (rows + 1),
        "qpu_estimate": 4.0,
    }
    return Request(**{**given, **changes})


def expected(key: str, rows: int = 3) -> list[np.ndarray]:
    """Return the values that the cloud gives the job of a key: unlike those of any other."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return [rng.uniform(-1, 1, size=rows), rng.uniform(-1, 1, size=1)]


def wrapped(error: Exception) -> Exception:
    """Return an error as qiskit-ibm-runtime raises it: its cause hidden, ``from None``."""
    try:
        try:
            raise error
        except Exception as inner:
            raise IBMRuntimeError(f"Failed to run program: {inner}") from None
    except Exception as outer:
        return outer


def lost() -> Exception:
    return requests.ConnectionError("('Connection aborted.', RemoteDisconnected('…'))")


FAULTS: dict[str, Callable[[], BaseException]] = {
    "lost": lost,
    "timeout": lambda: requests.ReadTimeout("Read timed out."),
    "429": lambda: wrapped(RequestsApiError("429 Client Error: Too Many Requests for url", 429)),
    "503": lambda: wrapped(RequestsApiError("… service is in maintenance mode")),
    "bad": lambda: wrapped(RequestsApiError("400 Client Error: Bad Request for url", 400)),
    "401": lambda: IBMNotAuthorizedError("401 Client Error: Unauthorized for url"),
    "killed": KilledError,
    "stop": KeyboardInterrupt,
}


@dataclass
class CloudJob:
    """What the cloud keeps of a job."""

    name: str
    key: str
    tags: list[str]
    rows: int
    polls: int
    end: str = "DONE"
    reason: str = ""
    spoilt: Any = None
    polled: int = 0
    cancelled: bool = False

    @property
    def state(self) -> str:
        if self.cancelled:
            return "CANCELLED"
        return "QUEUED" if self.polled < self.polls else self.end


@dataclass
class Cloud:
    """Keeps jobs and bills; each accepted job takes the next ending of the script."""

    polls: int = 2
    endings: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 3.0
    jobs: dict[str, CloudJob] = field(default_factory=dict)
    bills: Counter[str] = field(default_factory=Counter)
    uncancellable: bool = False

    def accept(self, request: Request, tags: list[str]) -> CloudJob:
        name = f"job-{sum(self.bills.values())}"
        end, reason = self.endings.pop(0) if self.endings else ("DONE", "")
        rows = request.circuits - 1
        job = CloudJob(name, request.key, tags, rows, self.polls, end, reason)
        self.jobs[name] = job
        self.bills[tags[0]] += 1
        return job

    def purge(self) -> None:
        self.jobs.clear()


@dataclass
class ScriptedService:
    """A client's connection to the cloud."""

    cloud: Cloud
    script: dict[str, list[str]] = field(default_factory=dict)
    name: str = "scripted"
    calls: list[str] = field(default_factory=list)

    def submit(self, request: Request, tags: list[str]) -> ScriptedJob:
        fault = self._next("submit")
        if fault.endswith("-after"):  # accepted, and the client never learns of it
            self.cloud.accept(request, tags)
            raise FAULTS[fault.removesuffix("-after")]()
        self._raise(fault)
        return ScriptedJob(self, self.cloud.accept(request, tags))

    def find(self, job_id: str) -> ScriptedJob | None:
        self._raise(self._next("find"))
        job = self.cloud.jobs.get(job_id)
        return None if job is None else ScriptedJob(self, job)

    def find_tagged(self, tag: str) -> ScriptedJob | None:
        self._raise(self._next("tag"))
        found = [job for job in self.cloud.jobs.values() if tag in job.tags]
        return ScriptedJob(self, found[0]) if found else None

    def close(self) -> None:
        self.calls.append("close")

    def _next(self, call: str) -> str:
        self.calls.append(call)
        faults = self.script.get(call, [])
        return faults.pop(0) if faults else "ok"

    @staticmethod
    def _raise(fault: str) -> None:
        if fault != "ok":
            raise FAULTS[fault]()


class ScriptedJob:
    """A client's view of a job."""

    def __init__(self, service: ScriptedService, job: CloudJob) -> None:
        self._service = service
        self._job = job

    def job_id(self) -> str:
        return self._job.name

    def status(self) -> str:
        self._meet("status")
        self._job.polled += 1
        return self._job.state

    def result(self) -> list[Any]:
        self._meet("result")
        assert self._job.state == "DONE"
        values = expected(self._job.key, self._job.rows)
        if self._job.spoilt is not None:
            values = self._job.spoilt
        return [SimpleNamespace(data=SimpleNamespace(evs=value)) for value in values]

    def cancel(self) -> None:
        self._meet("cancel")
        if self._service.cloud.uncancellable or self._job.state in ("DONE", "ERROR"):
            raise IBMRuntimeError("Job cannot be cancelled: 409 Client Error")
        self._job.cancelled = True

    def usage(self) -> float:
        self._meet("usage")
        return 0.0 if self._job.cancelled else self._service.cloud.seconds

    def metrics(self) -> dict[str, Any]:
        self._meet("metrics")
        return {
            "timestamps": {"created": "2026-01-01T00:00:00Z", "running": "2026-01-01T00:01:30Z"}
        }

    def error_message(self) -> str:
        self._meet("error_message")
        return self._job.reason

    def _meet(self, call: str) -> None:
        self._service._raise(self._service._next(call))
