"""Aer as a device: one broadcast job a step, counted shots, a real or fake backend's noise.

The noise is cut down to the qubits that a circuit uses. A noise model of all 127 qubits costs
0.9 s of every Aer job, whatever the circuit; that of four qubits costs milliseconds, and gives the
same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from core import derive_seed
from quantum.engines.devices.base import DONE, Job

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from quantum.engines.devices.base import Request
    from quantum.engines.devices.circuits import Compiled


Words = list[tuple[float, list[int]]]
"""A sum of products of Z: coefficients, and the places of each product's qubits."""

DENSITY_QUBITS = 9  # up to so many a noisy circuit's density matrix beats sampling its noise
NOT_GATES = frozenset({"measure", "reset", "delay"})


def finished_job(results: tuple[Any, ...], name: str) -> Job:
    """Return a job that is done: Aer's jobs live in this process only, free and without a queue.

    Parameters
    ----------
    results : tuple of PubResult
        One a PUB, ``data.evs`` of shape (R, M).
    name : str
        Stands for a job id.
    """
    job = SimpleNamespace(
        job_id=lambda: name,
        status=lambda: DONE,
        result=lambda: results,
        cancel=lambda: False,
        usage=lambda: 0.0,
        metrics=dict,
        error_message=lambda: None,
    )
    return cast(Job, job)


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

    def submit(self, request: Request, tags: Sequence[str]) -> Job:
        """Run a request; it is finished when this returns."""
        from qiskit.primitives import DataBin, PubResult

        shots = math.ceil(1.0 / request.precision**2)
        seed = derive_seed(self._seed, "shots", request.draw or request.key)
        values = [self._run(pub, shots, seed + i) for i, pub in enumerate(request.pubs)]
        results = tuple(PubResult(DataBin(evs=evs, shape=evs.shape)) for evs in values)
        return finished_job(results, request.key)

    def find(self, job_id: str) -> None:
        """Find nothing: no job outlives its process."""

    def find_tagged(self, tag: str) -> None:
        """Find nothing: no job outlives its process."""

    def close(self) -> None:
        """Nothing is held open."""

    def _run(self, pub: Any, shots: int, seed: int) -> np.ndarray:
        """Run one PUB; expectations of shape (R, M)."""
        circuit, observables, bindings = pub
        qubits, words = readouts_of(observables)
        measured = self._with_measurements(circuit, qubits)
        ((names, values),) = bindings.items()
        binds = {measured.get_parameter(n): values[:, i].tolist() for i, n in enumerate(names)}
        job = self._simulator.run(
            measured, parameter_binds=[binds], shots=shots, seed_simulator=seed
        )
        counts = [result.data.counts for result in job.result().results]
        return np.stack([expectations(each, words) for each in counts], axis=1)

    def _with_measurements(self, circuit: QuantumCircuit, qubits: Sequence[int]) -> QuantumCircuit:
        """Return the circuit with its read-outs measured, made once per circuit."""
        from qiskit import ClassicalRegister

        if id(circuit) not in self._measured:
            measured = circuit.copy()
            measured.add_register(ClassicalRegister(len(qubits), "z"))
            measured.measure(qubits, range(len(qubits)))
            # The circuit itself is stored too, so that its id stays its own.
            self._measured[id(circuit)] = (circuit, measured)
        return self._measured[id(circuit)][1]


def expectations(counts: Any, readouts: Sequence[Words]) -> np.ndarray:
    """Turn counted outcomes into the expectation of each read-out.

    Parameters
    ----------
    counts : mapping of hexadecimal str to int
        Outcomes as Aer writes them: bit c is the measured qubit c, least significant first.
    readouts : sequence
        R sums of products of Z, see `readouts_of`.

    Returns
    -------
    numpy.ndarray, shape (R,)
        Means over the outcomes; of one Z the share of zeros less that of ones.
    """
    outcomes = np.array([int(outcome, 16) for outcome in counts], dtype=np.int64)
    weights = np.array(list(counts.values()), dtype=np.float64)
    last = max((place for words in readouts for _, word in words for place in word), default=0)
    signs = 1 - 2 * ((outcomes[:, None] >> np.arange(last + 1)) & 1)
    values = [sum(f * signs[:, word].prod(axis=1) for f, word in words) for words in readouts]
    return np.asarray(weights @ np.stack(values, axis=1) / weights.sum())


def readouts_of(observables: Sequence[Sequence[Any]]) -> tuple[list[int], list[Words]]:
    """Return the physical qubits to measure, and the read-outs by their places among these."""
    found = []
    for operator, *_ in observables:
        terms = zip(operator.coeffs, operator.paulis.z, strict=True)
        found.append([(float(factor.real), np.flatnonzero(z).tolist()) for factor, z in terms])
    qubits = list(dict.fromkeys(q for words in found for _, word in words for q in word))
    return qubits, [[(f, [qubits.index(q) for q in word]) for f, word in words] for words in found]


def simulated(made: Compiled, backend: Any, name: str, threads: int) -> tuple[Compiled, Any]:
    """Cut a transpiled circuit down to the qubits it uses, with a simulator of just these.

    Parameters
    ----------
    made : Compiled
        On a device's qubits.
    backend : BackendV2 or None
        Whose noise; None: no noise but the shots'.
    name : str
        What the simulator is called in messages and in the job store.
    threads : int
        Threads of the simulator.

    Returns
    -------
    tuple of Compiled and AerSimulator
        The same gates on qubits 0, 1, ..., and where they run.
    """
    from qiskit_aer import AerSimulator

    qubits = used_qubits(made.circuit, made.facts.readouts)
    readouts = tuple(qubits.index(qubit) for qubit in made.facts.readouts)
    options: dict[str, Any] = {"max_parallel_threads": threads}
    if backend is not None:
        options["noise_model"] = noise_of(backend, qubits)
        if len(qubits) <= DENSITY_QUBITS:
            options["method"] = "density_matrix"
    simulator = AerSimulator(**options)
    simulator.name = name
    small = replace(
        made, circuit=compact(made.circuit, qubits), facts=replace(made.facts, readouts=readouts)
    )
    return small, simulator


def used_qubits(circuit: QuantumCircuit, measured: Sequence[int]) -> list[int]:
    """Return the qubits that a circuit's gates act on or that are measured, sorted."""
    touched = {circuit.find_bit(bit).index for step in circuit.data for bit in step.qubits}
    return sorted({*touched, *measured})


def compact(circuit: QuantumCircuit, qubits: Sequence[int]) -> QuantumCircuit:
    """Write a circuit onto as many qubits as it uses.

    Parameters
    ----------
    circuit : QuantumCircuit
        On a device's qubits.
    qubits : sequence of int
        Those it uses; they become 0, 1, ...

    Returns
    -------
    QuantumCircuit
        The same gates on ``len(qubits)`` qubits.
    """
    from qiskit import QuantumCircuit as Circuit

    place = {qubit: index for index, qubit in enumerate(qubits)}
    small = Circuit(len(qubits))
    for step in circuit.data:
        small.append(step.operation, [place[circuit.find_bit(bit).index] for bit in step.qubits])
    return small


def noise_of(backend: Any, qubits: Sequence[int]) -> Any:
    """Build the noise model of some of a backend's qubits, renumbered 0, 1, ...

    Depolarising and thermal gate errors and read-out errors from the backend's calibration, as
    `qiskit_aer.noise.NoiseModel.from_backend` builds them for all qubits.

    Parameters
    ----------
    backend : BackendV2
        With calibrated errors in its target.
    qubits : sequence of int
        Physical qubits.

    Returns
    -------
    qiskit_aer.noise.NoiseModel
        Local errors only.
    """
    from qiskit_aer.noise import NoiseModel
    from qiskit_aer.noise.device import basic_device_gate_errors, basic_device_readout_errors

    target = part_of(backend.target, qubits)
    names = [name for name in target.operation_names if name not in NOT_GATES]
    model = NoiseModel(basis_gates=names)
    for name, where, error in basic_device_gate_errors(target=target):
        if name in names and where:
            model.add_quantum_error(error, name, where)
    for where, error in basic_device_readout_errors(target=target):
        model.add_readout_error(error, where)
    return model


def part_of(target: Any, qubits: Sequence[int]) -> Any:
    """Cut a target down to some of its qubits, renumbered 0, 1, ..."""
    from qiskit.transpiler import Target

    place = {qubit: index for index, qubit in enumerate(qubits)}
    properties = target.qubit_properties
    part = Target(
        num_qubits=len(qubits),
        dt=target.dt,
        qubit_properties=[properties[qubit] for qubit in qubits] if properties else None,
    )
    for name in target.operation_names:
        known_there = {
            tuple(place[qubit] for qubit in where): known
            for where, known in target[name].items()
            if where is not None and set(where) <= set(qubits)
        }
        if known_there:
            part.add_instruction(target.operation_from_name(name), known_there, name=name)
    return part
