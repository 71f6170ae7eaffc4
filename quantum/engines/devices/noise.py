"""Noise of a device, cut down to the qubits that a circuit uses.

A noise model of all 127 qubits costs 0.9 s of every Aer job, whatever the circuit; that of four
qubits costs milliseconds, and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from quantum.engines.devices.transpiling import Compiled

DENSITY_QUBITS = 9  # up to so many a noisy circuit's density matrix beats sampling its noise


def simulated(made: Compiled, backend: Any, name: str, threads: int) -> tuple[Compiled, Any]:
    """Cut a transpiled circuit down to the qubits it uses, with a simulator of just these.

    Parameters
    ----------
    made : Compiled
        On a device's qubits.
    backend : BackendV2 or None
        Whose noise; None: no noise but the shots'.
    name : str
        What the simulator is called in messages and in the book of jobs.
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
        kept = {
            tuple(place[qubit] for qubit in where): known
            for where, known in target[name].items()
            if where is not None and set(where) <= set(qubits)
        }
        if kept:
            part.add_instruction(target.operation_from_name(name), kept, name=name)
    return part


NOT_GATES = frozenset({"measure", "reset", "delay"})
