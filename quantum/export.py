"""A trained circuit to take elsewhere: PennyLane, Qiskit and OpenQASM 3."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from core import SettingsError

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from quantum.circuit.circuit import Circuit
    from quantum.classifier import Classifier

Kind = Literal["pennylane", "qiskit", "qasm3"]
STANDARD_GATES = ("rx", "ry", "rz", "h", "s", "t", "x", "y", "z", "cx", "cz", "swap")
"""Gates of OpenQASM's stdgates.inc, which any program for OpenQASM 3 knows."""


def circuit_as(classifier: Classifier, parameters: Mapping[str, np.ndarray], kind: Kind) -> Any:
    """Return a trained circuit in another library's form.

    Parameters
    ----------
    classifier : Classifier
        The model.
    parameters : mapping of numpy.ndarray
        Trained parameters; those of the head act behind the circuit and are not in it.
    kind : {"pennylane", "qiskit", "qasm3"}
        The form.

    Returns
    -------
    callable, QuantumCircuit or str
        ``pennylane``: a quantum function of one row's features, shape (n,), or of many, shape
        (rows, n), that returns the read-outs' expectations, for a QNode on n wires. ``qiskit``: a
        circuit on n qubits without measurements, whose parameters are ``feature0`` ...;
        `observables_as` gives what to measure. ``qasm3``: a program with the features as inputs,
        which measures the qubits that are read out.

    Raises
    ------
    SettingsError
        If there is no such form.
    """
    circuit = classifier.ansatz
    weights = np.asarray(parameters["angles"], dtype=np.float64)
    if weights.shape != (circuit.angles,):
        raise ValueError(
            f"angles have shape {weights.shape}; the circuit's are ({circuit.angles},)"
        )
    forms: dict[str, Callable[[Circuit, np.ndarray], Any]] = {
        "pennylane": _pennylane,
        "qiskit": _qiskit,
        "qasm3": _qasm3,
    }
    if kind not in forms:
        raise SettingsError(f"a circuit as {kind!r}", ", ".join(forms), "choose one of them")
    return forms[kind](circuit, circuit.slot_values(weights))


def observables_as(classifier: Classifier, kind: Literal["pennylane", "qiskit"]) -> list[Any]:
    """Return the R read-outs as observables: PennyLane's, or ``SparsePauliOp`` of n qubits."""
    circuit = classifier.ansatz
    if kind == "qiskit":
        from quantum.circuit.to_qiskit import pauli_operator

        size = circuit.n_qubits
        return [pauli_operator(readout, range(size), size) for readout in circuit.readouts]
    from pennylane.wires import Wires

    from quantum.circuit.to_pennylane import observable

    return [observable(readout, Wires(range(circuit.n_qubits))) for readout in circuit.readouts]


def _pennylane(circuit: Circuit, slots: np.ndarray) -> Callable[[Any], list[Any]]:
    import pennylane as qml

    from quantum.circuit.to_pennylane import observable, operations

    wires = qml.wires.Wires(range(circuit.n_qubits))

    def trained(features: Any) -> list[Any]:
        operations(circuit.blocks, wires, slots, features)
        return [qml.expval(observable(readout, wires)) for readout in circuit.readouts]

    return trained


def _qiskit(circuit: Circuit, slots: np.ndarray) -> QuantumCircuit:
    from quantum.circuit.to_qiskit import to_qiskit

    traced, names = to_qiskit(circuit)
    values = dict(zip(names, slots.tolist(), strict=False))
    bound = {p: values[p.name] for p in traced.parameters if p.name in values}
    trained = traced.assign_parameters(bound)
    trained.name = "trained"
    return trained


def _qasm3(circuit: Circuit, slots: np.ndarray) -> str:
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, qasm3, transpile

    with warnings.catch_warnings():  # qiskit loads every installed plugin, and some warn
        warnings.simplefilter("ignore", DeprecationWarning)
        trained = transpile(
            _qiskit(circuit, slots), basis_gates=list(STANDARD_GATES), optimization_level=0
        )
    qubits, bits = circuit.n_qubits, len(circuit.readout_wires)
    program = QuantumCircuit(QuantumRegister(qubits, "q"), ClassicalRegister(bits, "readout"))
    program.compose(trained, inplace=True)
    program.measure(circuit.readout_wires, range(bits))
    return str(qasm3.dumps(program))
