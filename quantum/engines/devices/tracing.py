"""Tracing an ansatz into one parametrised Qiskit circuit, from its PennyLane template.

There is no second definition of the circuit: the template's operations are made with symbolic
angles and features, and pennylane-qiskit writes them as Qiskit gates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum.ansatz.circuits import QCNN, VQC

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

COUPLINGS = ("IsingXX", "IsingYY", "IsingZZ")


@dataclass(frozen=True)
class Traced:
    """A parametrised circuit without measurements.

    Attributes
    ----------
    circuit : QuantumCircuit
        On n qubits.
    names : tuple of str
        Names of its parameters: P angles, then n features, each in the circuit as often as it is
        uploaded.
    readouts : tuple of int
        The R qubits whose Z is measured.
    """

    circuit: QuantumCircuit
    names: tuple[str, ...]
    readouts: tuple[int, ...]


def trace(ansatz: QCNN | VQC) -> Traced:
    """Trace an ansatz.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit, encoding included.

    Returns
    -------
    Traced
        Its parameters are the angles and the features themselves: whatever arithmetic an encoding
        does with features is part of the circuit.
    """
    import pennylane as qml
    from pennylane_qiskit.converter import circuit_to_qiskit
    from qiskit.circuit import Parameter

    from quantum.ansatz.templates import circuit_templates

    wires = range(ansatz.n_qubits)
    angles = [f"angle{i}" for i in range(ansatz.angles)]
    features = [f"feature{i}" for i in range(ansatz.n_qubits)]
    first, second = (np.array([Parameter(name) for name in names]) for names in (angles, features))
    templates = circuit_templates(ansatz, first, second, wires)
    operations = [gate for template in templates for gate in template.decomposition()]
    script = qml.tape.QuantumScript(join_couplings(operations))
    circuit = circuit_to_qiskit(script, ansatz.n_qubits, diagonalize=False, measure=False)
    return Traced(circuit, (*angles, *features), ansatz.readout_wires)


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
    index = 0
    while index < len(operations):
        three = operations[index : index + 3]
        same = len({op.wires for op in three}) == 1
        if same and tuple(op.name for op in three) == COUPLINGS:
            joined += _three_cnots([op.parameters[0] for op in three], three[0].wires)
            index += 3
        else:
            joined.append(operations[index])
            index += 1
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
