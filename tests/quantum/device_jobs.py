"""One small job for the tests of devices, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager

from core import HardwareSettings
from quantum.engines.base import Usage
from quantum.engines.devices.backends import pick_backend
from quantum.engines.devices.base import Budget, Request
from quantum.engines.devices.ibm import IbmService
from quantum.engines.devices.job_store import JobStore
from quantum.engines.devices.jobs import JobRunner
from tests.quantum.http_cloud import HttpCloud, client_of

ANGLES = np.array([[0.3], [1.0], [2.0]])
SHOTS = 4096


def circuit_on(backend: Any) -> tuple[QuantumCircuit, SparsePauliOp]:
    """Return cos(angle) as a circuit of two qubits, transpiled, and its observable."""
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    level: Literal[1] = 1
    ready = generate_preset_pass_manager(level, backend, seed_transpiler=0).run(circuit)
    return ready, SparsePauliOp("ZI").apply_layout(ready.layout)


def request_on(backend: Any, key: str = "k") -> Request:
    pub = (*circuit_on(backend), ANGLES)
    return Request((pub,), SHOTS**-0.5, key, "run-1", "round 1", 3, 3 * SHOTS, 1.0)


def runner_of(service: IbmService, path: Path | None = None, **given: Any) -> JobRunner:
    options = {"budget": Budget(), "retries": 2, "timeout": 600.0, **given}
    options.setdefault("sleep", lambda seconds: None)
    store = None if path is None else JobStore(path)
    return JobRunner(service, store, rng=np.random.default_rng(0), **options)


def client_on(cloud: HttpCloud, path: Path) -> Callable[..., JobRunner]:
    """Return a function that starts a client again: a new service, a new store on the same file."""

    def begin(hardware: HardwareSettings | None = None, **given: Any) -> JobRunner:
        client = client_of(cloud)
        backend = pick_backend(client, "manila", 2)
        service = IbmService(backend, hardware or HardwareSettings(), 0, client)
        return runner_of(service, path, **given)

    return begin


def go(runner: JobRunner, key: str = "k") -> Usage:
    (values,), usage = runner.run(request_on(runner.service.backend, key))  # type: ignore[attr-defined]
    assert np.allclose(values, np.cos(ANGLES[:, 0]))
    return usage


ONE = Usage(1, 3, 3 * SHOTS, 2.5, 59.5)
