"""Aer as a device: one broadcast job a step, counted shots, a real or fake backend's noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum.devices.engine import readouts_of
from quantum.devices.noise import compact, noise_of, used_qubits

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from quantum.devices.contract import Request

DENSITY_QUBITS = 9  # up to so many a noisy circuit's density matrix beats sampling its noise


@dataclass(frozen=True)
class Finished:
    """A job that is done.

    Attributes
    ----------
    results : tuple of PubResult
        One a PUB, ``data.evs`` of shape (R, M).
    name : str
        Stands for a job id.
    """

    results: tuple[Any, ...]
    name: str

    def job_id(self) -> str:
        """Return a name; Aer's jobs live in this process only."""
        return self.name

    def status(self) -> str:
        """Return DONE."""
        return "DONE"

    def result(self, timeout: float | None = None) -> tuple[Any, ...]:
        """Return the results."""
        return self.results

    def cancel(self) -> bool:
        """Say that there is nothing to cancel."""
        return False

    def usage(self) -> float:
        """Return no QPU seconds."""
        return 0.0

    def metrics(self) -> dict[str, Any]:
        """Return no time stamps: there is no queue."""
        return {}

    def error_message(self) -> None:
        """Say nothing: an error was raised when the job ran."""


class AerService:
    """Runs requests on Aer's simulator.

    Parameters
    ----------
    backend : BackendV2 or None
        Whose noise; None: no noise but the shots'.
    threads : int
        Threads of the simulator.

    Notes
    -----
    Rows and points are bound inside the simulator (``parameter_binds``), so Python's work does not
    grow with them. Read-out errors act: expectations are counted, not computed from the state.
    """

    def __init__(self, backend: Any, threads: int = 1) -> None:
        self._backend, self._threads = backend, threads
        self._ready: dict[int, tuple[Any, QuantumCircuit, Any]] = {}

    @property
    def name(self) -> str:
        """The simulator, and whose noise it has."""
        return "aer" if self._backend is None else f"aer with the noise of {self._backend.name}"

    def submit(self, request: Request, tags: Sequence[str]) -> Finished:
        """Run a request; it is finished when this returns."""
        from qiskit.primitives import DataBin, PubResult

        shots = math.ceil(1.0 / request.precision**2 - 1e-9)
        seed = int(request.key[:8], 16)
        values = [self._run(pub, shots, seed + i) for i, pub in enumerate(request.pubs)]
        return Finished(
            tuple(PubResult(DataBin(evs=evs, shape=evs.shape)) for evs in values), request.key
        )

    def find(self, job_id: str) -> None:
        """Find nothing: no job outlives its process."""

    def find_tagged(self, tag: str) -> None:
        """Find nothing: no job outlives its process."""

    def close(self) -> None:
        """Nothing is held open."""

    def _run(self, pub: Any, shots: int, seed: int) -> np.ndarray:
        circuit, observables, bindings = pub
        measured = readouts_of(observables)
        simulator, small = self._prepared(circuit, measured)
        ((names, values),) = bindings.items()
        binds = {small.get_parameter(n): values[:, i].tolist() for i, n in enumerate(names)}
        job = simulator.run(small, parameter_binds=[binds], shots=shots, seed_simulator=seed)
        counts = [result.data.counts for result in job.result().results]
        return np.stack([expectations(each, len(measured)) for each in counts], axis=1)

    def _prepared(self, circuit: QuantumCircuit, measured: Sequence[int]) -> tuple[Any, Any]:
        """Return simulator and measured compact circuit, made once per circuit."""
        kept = self._ready.get(id(circuit))
        if kept is None:
            kept = (circuit, *self._prepare(circuit, measured))  # kept alive: its id is the key
            self._ready[id(circuit)] = kept
        return kept[1], kept[2]

    def _prepare(self, circuit: QuantumCircuit, measured: Sequence[int]) -> tuple[Any, Any]:
        from qiskit import ClassicalRegister
        from qiskit_aer import AerSimulator

        qubits = used_qubits(circuit, measured)
        small = compact(circuit, qubits)
        small.add_register(ClassicalRegister(len(measured), "z"))
        small.measure([qubits.index(qubit) for qubit in measured], range(len(measured)))
        options: dict[str, Any] = {"max_parallel_threads": self._threads}
        if self._backend is not None:
            options["noise_model"] = noise_of(self._backend, qubits)
            if len(qubits) <= DENSITY_QUBITS:
                options["method"] = "density_matrix"
        return AerSimulator(**options), small


def expectations(counts: Any, readouts: int) -> np.ndarray:
    """Turn counted outcomes into <Z> of each read-out.

    Parameters
    ----------
    counts : mapping of hexadecimal str to int
        Outcomes as Aer writes them: bit c is read-out c, least significant first.
    readouts : int
        R.

    Returns
    -------
    numpy.ndarray, shape (R,)
        Share of zeros less share of ones.
    """
    outcomes = np.array([int(outcome, 16) for outcome in counts], dtype=np.int64)
    weights = np.array(list(counts.values()), dtype=np.float64)
    bits = (outcomes[:, None] >> np.arange(readouts)) & 1
    return np.asarray(weights @ (1 - 2 * bits) / weights.sum())
