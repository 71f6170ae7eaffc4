"""The engine of devices: a step's points and rows as one primitive job."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from core import BackendError, HardwareSettings, family
from quantum.circuit import Circuit
from quantum.circuit.to_qiskit import pauli_operator
from quantum.engines.base import FeatureRows, Usage
from quantum.engines.devices.aer import AerService, simulated
from quantum.engines.devices.backends import find_backend, make_store, unusable
from quantum.engines.devices.base import Budget, Request, Service, qpu_seconds
from quantum.engines.devices.circuits import Compiled, compile_circuit
from quantum.engines.devices.ibm import IbmService
from quantum.engines.devices.job_store import JobStore
from quantum.engines.devices.jobs import JobRunner

if TYPE_CHECKING:
    from core import QuantumSettings
    from quantum.engines.base import EncodedRows, Host

EXECUTIONS = 5_000_000
"""Most circuits times shots of one job: IBM's documented limit."""


def open_engine(ansatz: Circuit, settings: QuantumSettings, host: Host) -> CircuitEngine:
    """Open a device and transpile the circuit for it.

    Parameters
    ----------
    ansatz : Circuit
        The circuit.
    settings : QuantumSettings
        The `quantum` section; ``backend`` is of the families aer, fake or ibm.
    host : Host
        Hardware settings, seed, folder, run.

    Returns
    -------
    CircuitEngine
        Ready to run jobs.

    Raises
    ------
    BackendError
        If there is no such backend, no account, too few qubits, or no store that can be written.
    """
    kind, hardware = family(settings.backend), host.hardware
    make_store(host)
    backend, ibm = find_backend(settings.backend, hardware.account, ansatz.n_qubits, host)
    level, trials = hardware.optimization_level, hardware.layout_trials
    folder = host.store / "circuits"
    try:
        circuit = compile_circuit(ansatz, backend, level, trials, host.layout_seed, folder)
    except OSError as error:
        raise unusable(host, error) from None
    # Aer's jobs are over when they return: only a budget must outlive the process.
    lasting = kind != "aer" or hardware.budgeted
    store = JobStore(host.store / "jobs.sqlite") if lasting else None
    service: Service
    if kind == "ibm":
        service = IbmService(backend, hardware, host.seed, ibm)
    else:
        noisy = None if settings.backend == "aer" else backend
        circuit, simulator = simulated(circuit, noisy, backend.name, settings.threads)
        local = AerService(simulator, host.seed)
        service = local if kind == "aer" else IbmService(simulator, hardware, host.seed)
    runner = JobRunner(
        service,
        store,
        Budget.of(hardware),
        hardware.retries,
        hardware.job_timeout or host.timeout,
        np.random.default_rng(host.seed),
    )
    return CircuitEngine(settings.backend, circuit, runner, hardware, host.run)


class CircuitEngine:
    """Runs a transpiled circuit on a device.

    Parameters
    ----------
    name : str
        The backend as `quantum.backend` names it.
    circuit : Compiled
        The transpiled circuit.
    runner : JobRunner
        Submits jobs, records them, and waits for them.
    hardware : HardwareSettings
        Shots, and the most circuits of a job.
    run : str
        The federated run, whose budgets count.

    Notes
    -----
    K points of B rows are K B circuits, R read-outs need no more: they commute, and are measured
    together. Time grows with circuits times shots, not with angles.
    """

    def __init__(
        self, name: str, circuit: Compiled, runner: JobRunner, hardware: HardwareSettings, run: str
    ) -> None:
        self.name = name
        self.dtype = torch.float64
        self.device = torch.device("cpu")
        self.usage = self.reported = Usage()
        self.shots = hardware.circuit_shots
        self.circuit = circuit
        self._runner, self._run = runner, run
        self._job_circuits = hardware.job_circuits or max(1, EXECUTIONS // self.shots)
        ibm = family(name) == "ibm"
        self._resilience_level = hardware.resilience_level if ibm else 0
        self._label, self._number = "", 0
        self._observables = _observables(circuit)
        self._columns = [circuit.names.index(p.name) for p in circuit.circuit.parameters]

    @property
    def device_name(self) -> str:
        """The device's own name."""
        return self.circuit.facts.backend

    @property
    def error(self) -> float:
        """Estimated probability that some gate or read-out fails, by the device's calibration."""
        return self.circuit.facts.error

    @property
    def two_qubit_gates(self) -> int:
        """Two-qubit gates of one circuit after transpiling."""
        return self.circuit.facts.two_qubit_gates

    def quote(self, circuits: int) -> tuple[int, float]:
        """Return the jobs that so many circuits would be, and their QPU seconds, estimated."""
        jobs = math.ceil(circuits / self._job_circuits)
        each = math.ceil(circuits / jobs) if jobs else 0
        return jobs, jobs * self._seconds(each) if jobs else 0.0

    def reserve(self, *circuits: int, overdraw: bool = False) -> None:
        """Reserve budget for later jobs of so many circuits each, until the next call.

        With ``overdraw`` the next job may exceed the budget of QPU seconds.
        """
        self._runner.overdraw = overdraw
        quotes = [(*self.quote(count), count) for count in circuits]
        each = (Usage(jobs, n, n * self.shots, seconds) for jobs, seconds, n in quotes)
        self._runner.reserved = sum(each, Usage())

    def begin(self, label: str) -> None:
        """Label the next jobs, for instance ``client 2, round 5, train``.

        A job's key is made of label, number and content. When an order is carried out again after
        the client was killed, its jobs have the keys of the first time, and are collected.
        """
        self._label, self._number = label, 0

    def close(self) -> None:
        """End a session or batch."""
        self._runner.service.close()

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> FeatureRows:
        """Keep features of shape (rows, n), whatever the rows of a step."""
        return FeatureRows.of(features)

    def expectations(self, angles: Tensor, encoded: EncodedRows) -> Tensor:
        """Return the read-outs' expectations, shape (rows, R); counted, so there is no derivative.

        Raises
        ------
        RuntimeError
            If a gradient is requested.
        """
        if torch.is_grad_enabled() and angles.requires_grad:
            raise RuntimeError("a device has no autograd; use parameter-shift, spsa or cobyla.")
        points = angles.detach().double().cpu().numpy()[None]
        return torch.from_numpy(self.evaluate(points, encoded)[0])

    def evaluate(self, points: np.ndarray, encoded: EncodedRows) -> np.ndarray:
        """Compute the expectations at each of K points (K, S), shape (K, rows, R), in one job.

        Only a job beyond the backend's limit is split.

        Raises
        ------
        BackendError
            If the job cannot be submitted, fails, or would exceed a budget.
        """
        rows = cast(FeatureRows, encoded).features.numpy()
        values = np.concatenate(
            [np.repeat(points, len(rows), axis=0), np.tile(rows, (len(points), 1))], axis=1
        )
        parts = math.ceil(len(values) / self._job_circuits)
        found = [self._job(part) for part in np.array_split(values, parts)]
        return np.concatenate(found, axis=1).T.reshape(len(points), len(rows), -1)

    def _job(self, values: np.ndarray) -> np.ndarray:
        """Run one job: angles and features (M, P + n), expectations (R, M)."""
        names = tuple(parameter.name for parameter in self.circuit.circuit.parameters)
        key, draw = self._names(values)
        request = Request(
            pubs=((self.circuit.circuit, self._observables, {names: values[:, self._columns]}),),
            precision=precision_of(self.shots),
            key=key,
            run=self._run,
            label=self._label,
            circuits=len(values),
            shots=len(values) * self.shots,
            qpu_estimate=self._seconds(len(values)),
            draw=draw,
        )
        self._number += 1
        try:
            (expectations,), usage = self._runner.run(request)
        except BackendError:  # a job that was paid in vain counts too
            self.usage = self.usage + self._runner.usage_of(request.key)
            raise
        self.usage = self.usage + usage
        return np.asarray(expectations)

    def _seconds(self, circuits: int) -> float:
        """Estimate the QPU seconds of one job."""
        facts, level = self.circuit.facts, self._resilience_level
        return qpu_seconds(self.name, facts.seconds, circuits, self.shots, level)

    def _names(self, values: np.ndarray) -> tuple[str, str]:
        """Name a job for good, and what its shots are drawn for, whichever run it is in."""
        # Not the transpiled circuit: a backend that is recalibrated while a client is down
        # gets another one, and the job of the old one is paid for all the same.
        identity = (
            self._run,
            self._label,
            self._number,
            self.name,
            repr(self.circuit.ansatz),
            self.shots,
        )
        content = np.ascontiguousarray(values, dtype=np.float64).tobytes()
        key, draw = (hashlib.sha256(repr(of).encode() + content) for of in (identity, identity[1:]))
        return key.hexdigest()[:40], draw.hexdigest()[:40]


def precision_of(shots: int) -> float:
    """Return the standard error that makes a primitive run so many shots.

    A hair wider than 1 / sqrt(shots): a primitive runs ceil(1 / precision²), and 32 would be 33.
    """
    return (1.0 + 1e-9) / math.sqrt(shots)


def _observables(circuit: Compiled) -> list[list[Any]]:
    """Return the read-outs on the backend's qubits, (R, 1): broadcast against M parameter sets."""
    size, ansatz = circuit.circuit.num_qubits, circuit.ansatz
    place = dict(zip(ansatz.readout_wires, circuit.facts.readouts, strict=True))
    return [[pauli_operator(readout, place, size)] for readout in ansatz.readouts]
