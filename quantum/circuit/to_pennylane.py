"""A traced circuit as PennyLane's operations and observables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.operation import Operator
from pennylane.wires import Wires

from quantum.circuit.circuit import Readout
from quantum.circuit.expression import Expression
from quantum.circuit.gates import Block, Gate, Trainable, gates_of


def operations(
    blocks: Iterable[Block], wires: Wires, slots: Any = None, features: Any = None
) -> list[Operator]:
    """Turn blocks into PennyLane operations; inside a quantum function they are queued.

    Parameters
    ----------
    blocks : iterable of Block
        The blocks.
    wires : Wires
        Labels of qubits 0 ... n-1.
    slots : tensor, shape (S,), optional
        Values of the slots.
    features : tensor, shape (..., n), optional
        Values of the features; a leading axis broadcasts.

    Returns
    -------
    list of Operator
        In order of time.
    """
    place = dict(enumerate(wires))
    return [_operation(gate, place, slots, features) for gate in gates_of(blocks)]


def _operation(gate: Gate, place: dict[int, Any], slots: Any, features: Any) -> Operator:
    kind = getattr(qml, gate.name)
    wires = [place[wire] for wire in gate.wires]
    if gate.matrix is not None:
        return kind(np.array(gate.matrix), wires=wires)
    if gate.angle is None:
        return kind(wires=wires)
    if isinstance(gate.angle, float):
        return kind(gate.angle, wires=wires)
    if isinstance(gate.angle, Trainable):
        return kind(slots[..., gate.angle.index], wires=wires)
    return kind(angle_value(gate.angle, slots, features), wires=wires)


def angle_value(angle: Expression, slots: Any, features: Any) -> Any:
    """Compute an angle in whatever library slots and features are arrays of."""

    def call(name: str, value: Any) -> Any:
        own = getattr(value, name, None)  # torch and Qiskit; PennyLane finds other libraries
        return getattr(qml.math, name)(value) if own is None else own()

    return angle.compute({"slot": slots, "feature": features}, call)


def observable(readout: Readout, wires: Wires) -> Any:
    """Return a read-out as a PennyLane observable."""
    terms = [
        (factor, qml.prod(*(qml.Z(wires[w]) for w in word)) if word else qml.Identity(wires[0]))
        for factor, word in readout
    ]
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1]
    return qml.dot([factor for factor, _ in terms], [term for _, term in terms])
