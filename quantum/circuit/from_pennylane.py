"""PennyLane's operations and observables in our vocabulary: rotations, fixed gates, Z words.

PennyLane decomposes what is not in the vocabulary, angles being symbols; a gate of one or two
qubits without symbols that it cannot decompose is taken by its matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pennylane as qml
from autoray import register_backend

from quantum.circuit.expression import Expression
from quantum.circuit.gates import (
    ROTATIONS,
    UNITARY,
    Gate,
    UnknownGateError,
    one_angle,
    wire_tuple,
)

FIXED = frozenset({"CNOT", "CZ", "SWAP", "Hadamard", "S", "T", "PauliX", "PauliY", "PauliZ"})
NOTHING = frozenset({"GlobalPhase", "Identity", "Barrier", "Snapshot"})
"""What has no effect on expectations."""

Words = dict[tuple[tuple[int, str], ...], float]
"""A sum of Pauli words: (wire, letter) pairs, sorted, to coefficients."""

register_backend(Expression, "numpy")


def gates_from(operations: Sequence[Any]) -> Iterator[Gate]:
    """Turn queued operations into gates, in order of time.

    Raises
    ------
    UnknownGateError
        If one is a measurement, or cannot be decomposed.
    """
    for operation in operations:
        yield from _gates(operation)


def _gates(operation: Any) -> Iterator[Gate]:
    if isinstance(operation, qml.measurements.MeasurementProcess):
        raise UnknownGateError(f"{operation} measures")
    if operation.name in NOTHING:
        return
    if operation.name == UNITARY:
        _check_unitary(operation.parameters[0])
    if _is_known(operation):
        yield _gate(operation)
        return
    parts = _decomposed(operation)
    if parts is not None:
        for part in parts:
            yield from _gates(part)
        return
    yield _matrix_gate(operation)


def _check_unitary(matrix: Any) -> None:
    """Refuse a matrix that is not unitary: PennyLane decomposes it into gates of another one."""
    numbers = np.asarray(matrix)
    if numbers.dtype != object and not np.allclose(
        numbers @ numbers.conj().T, np.eye(len(numbers)), atol=1e-6
    ):
        raise UnknownGateError(f"the matrix of a {UNITARY} is not unitary")


def _is_known(operation: Any) -> bool:
    if operation.name == "MultiRZ":
        return len(operation.wires) <= 2
    return operation.name in ROTATIONS | FIXED


def _gate(operation: Any) -> Gate:
    name, wires = operation.name, wire_tuple(operation.wires)
    if name == "MultiRZ":
        name = "RZ" if len(wires) == 1 else "IsingZZ"
    angles = [one_angle(value) for value in operation.parameters]
    return Gate(name, wires, angles[0] if angles else None)


def _decomposed(operation: Any) -> list[Any] | None:
    """Return the parts of an operation; None if PennyLane knows none, or no other."""
    with warnings.catch_warnings(), qml.QueuingManager.stop_recording():
        warnings.simplefilter("ignore")
        if not operation.has_decomposition:
            return None
        try:
            parts = operation.decomposition()
        except Exception as error:  # whatever arithmetic a decomposition tries on symbols
            if _has_symbols(operation):
                raise UnknownGateError(f"{operation.name} cannot be traced ({error})") from error
            return None
    same = len(parts) == 1 and parts[0].name == operation.name
    return None if same else list(parts)


def _matrix_gate(operation: Any) -> Gate:
    """Return a gate by its matrix."""
    wires = wire_tuple(operation.wires)
    if len(wires) > 2 or _has_symbols(operation) or not operation.has_matrix:
        why = "of more than two qubits " if len(wires) > 2 else ""
        raise UnknownGateError(f"{operation.name} {why}is neither decomposed nor a known gate")
    matrix = qml.matrix(operation, wire_order=wires)
    return Gate(UNITARY, wires, None, tuple(tuple(complex(v) for v in row) for row in matrix))


def _has_symbols(operation: Any) -> bool:
    flat = [v for p in operation.parameters for v in (p.flat if hasattr(p, "flat") else [p])]
    return any(isinstance(value, Expression) for value in flat)


def _name(observable: Any) -> str:
    name = getattr(observable, "name", type(observable).__name__)
    return f"{name} on wires {list(getattr(observable, 'wires', []))}"


def words_from(observable: Any) -> Words:
    """Return an observable as a sum of Pauli words.

    Raises
    ------
    UnknownGateError
        If it is none, and not one of one or two qubits with a matrix.
    """
    sentence = getattr(observable, "pauli_rep", None)
    if sentence is None:
        wires = wire_tuple(getattr(observable, "wires", ()))
        if not 1 <= len(wires) <= 2 or not getattr(observable, "has_matrix", False):
            raise UnknownGateError(f"{_name(observable)} is no sum of Pauli words")
        matrix = qml.matrix(observable, wire_order=wires)
        sentence = qml.pauli_decompose(matrix, wire_order=wires, pauli=True)
    found: Words = {}
    for word, coefficient in sentence.items():
        if abs(complex(coefficient).imag) > 1e-12:
            raise UnknownGateError(f"{_name(observable)} is not Hermitian")
        found[tuple(sorted(word.items()))] = float(complex(coefficient).real)
    return found
