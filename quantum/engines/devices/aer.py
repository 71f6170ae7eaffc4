"""Aer as a device: one broadcast job a step, counted shots, a real or fake backend's noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core import derive_seed
from quantum.engines.devices.engine import readouts_of

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from quantum.engines.devices.contract import Request


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
    simulator : AerSimulator
        With a device's noise, or without.
    seed : int
        Of the shots: the same seed and draw give the same numbers.

    Notes
    -----
    Rows and points are bound inside the simulator (``parameter_binds``), so Python's work does not
    grow with them. Read-out errors act: expectations are counted, not computed from the state.
    """

    def __init__(self, simulator: Any, seed: int) -> None:
        self._simulator, self._seed = simulator, seed
        self._measured: dict[int, tuple[QuantumCircuit, QuantumCircuit]] = {}

    @property
    def name(self) -> str:
        """Aer, and which device's noise it has."""
        return f"aer ({self._simulator.name})"

    def submit(self, request: Request, tags: Sequence[str]) -> Finished:
        """Run a request; it is finished when this returns."""
        from qiskit.primitives import DataBin, PubResult

        shots = math.ceil(1.0 / request.precision**2)
        seed = derive_seed(self._seed, "shots", request.draw or request.key)
        values = [self._run(pub, shots, seed + i) for i, pub in enumerate(request.pubs)]
        results = tuple(PubResult(DataBin(evs=evs, shape=evs.shape)) for evs in values)
        return Finished(results, request.key)

    def find(self, job_id: str) -> None:
        """Find nothing: no job outlives its process."""

    def find_tagged(self, tag: str) -> None:
        """Find nothing: no job outlives its process."""

    def close(self) -> None:
        """Nothing is held open."""

    def _run(self, pub: Any, shots: int, seed: int) -> np.ndarray:
        """Run one PUB; expectations of shape (R, M)."""
        circuit, observables, bindings = pub
        qubits = readouts_of(observables)
        measured = self._with_measurements(circuit, qubits)
        ((names, values),) = bindings.items()
        binds = {measured.get_parameter(n): values[:, i].tolist() for i, n in enumerate(names)}
        job = self._simulator.run(
            measured, parameter_binds=[binds], shots=shots, seed_simulator=seed
        )
        counts = [result.data.counts for result in job.result().results]
        return np.stack([expectations(each, len(qubits)) for each in counts], axis=1)

    def _with_measurements(self, circuit: QuantumCircuit, qubits: Sequence[int]) -> QuantumCircuit:
        """Return the circuit with its read-outs measured, made once per circuit."""
        from qiskit import ClassicalRegister

        kept = self._measured.get(id(circuit))
        if kept is None:
            measured = circuit.copy()
            measured.add_register(ClassicalRegister(len(qubits), "z"))
            measured.measure(qubits, range(len(qubits)))
            kept = (circuit, measured)  # the first is kept alive: its id is the key
            self._measured[id(circuit)] = kept
        return kept[1]


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
