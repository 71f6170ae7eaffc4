"""A traced circuit as Qiskit's: slots and features are its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum.circuit.circuit import Circuit, Readout

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

COUPLINGS = ("IsingXX", "IsingYY", "IsingZZ")


def pauli_operator(readout: Readout, place: Mapping[int, int] | Sequence[int], size: int) -> Any:
    """Return a read-out as a ``SparsePauliOp`` of ``size`` qubits, qubit w at ``place[w]``."""
    from qiskit.quantum_info import SparsePauliOp

    terms = [("Z" * len(word), [place[wire] for wire in word], factor) for factor, word in readout]
    return SparsePauliOp.from_sparse_list(terms, size)


def to_qiskit(ansatz: Circuit) -> tuple[QuantumCircuit, tuple[str, ...]]:
    """Write a circuit as Qiskit's.

    Parameters
    ----------
    ansatz : Circuit
        The circuit.

    Returns
    -------
    QuantumCircuit
        On n qubits, without measurements. Its parameters are the angles and the features
        themselves: whatever arithmetic an encoding does with features is part of the circuit.
    tuple of str
        Names of its parameters: S slots, then n features, each in the circuit as often as it is
        uploaded.
    """
    import pennylane as qml
    from pennylane_qiskit.converter import circuit_to_qiskit
    from qiskit.circuit import Parameter

    from quantum.circuit.to_pennylane import operations

    angles = [f"angle{i}" for i in range(ansatz.slots)]
    features = [f"feature{i}" for i in range(ansatz.n_qubits)]
    first, second = (np.array([Parameter(name) for name in names]) for names in (angles, features))
    wires = qml.wires.Wires(range(ansatz.n_qubits))
    script = qml.tape.QuantumScript(join_couplings(operations(ansatz.blocks, wires, first, second)))
    circuit = circuit_to_qiskit(script, ansatz.n_qubits, diagonalize=False, measure=False)
    return circuit, (*angles, *features)


def join_couplings(operations: Sequence[Any]) -> list[Any]:
    """Replace each IsingXX, IsingYY, IsingZZ on one pair by three CNOTs instead of six.

    A compiler does so for numbers (KAK), not for symbols. ``exp(-i (x XX + y YY + z ZZ) / 2)`` is,
    up to a global phase, the circuit of Vatan and Williams (arXiv quant-ph/0308006, figure 6)
    with angles linear in x, y and z.

    Parameters
    ----------
    operations : sequence of Operator
        In order of time.

    Returns
    -------
    list of Operator
        The same unitary.
    """
    joined: list[Any] = []
    for operation in operations:
        joined.append(operation)
        three = joined[-3:]
        same_wires = len({op.wires for op in three}) == 1
        if same_wires and tuple(op.name for op in three) == COUPLINGS:
            joined[-3:] = _three_cnots([op.parameters[0] for op in three], operation.wires)
    return joined


def _three_cnots(angles: Sequence[Any], wires: Sequence[Any]) -> list[Any]:
    import pennylane as qml

    (x, y, z), (first, second) = angles, wires
    return [
        qml.RZ(-math.pi / 2, wires=second),
        qml.CNOT(wires=(second, first)),
        qml.RZ(z - math.pi / 2, wires=first),
        qml.RY(math.pi / 2 - x, wires=second),
        qml.CNOT(wires=(first, second)),
        qml.RY(y - math.pi / 2, wires=second),
        qml.CNOT(wires=(second, first)),
        qml.RZ(math.pi / 2, wires=first),
    ]
