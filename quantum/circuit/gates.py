"""The vocabulary of traced circuits: gates, where their angles come from, and blocks of gates.

Plain values without any quantum library: all engines read them, so a circuit is written down
exactly once. Gate names are PennyLane's. Only Pauli rotations carry angles, so the two-term
parameter-shift rule holds for every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantum.circuit.expression import Expression

ROTATIONS = frozenset({"RX", "RY", "RZ", "IsingXX", "IsingYY", "IsingZZ"})
UNITARY = "QubitUnitary"
CNOT_COST = {"CNOT": 1, "CZ": 1, "SWAP": 3, "IsingXX": 2, "IsingYY": 2, "IsingZZ": 2}
KAK_CNOTS = 3  # any two-qubit unitary needs at most three CNOTs (KAK decomposition)


class UnknownGateError(ValueError):
    """A circuit holds what our vocabulary cannot say."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """The angle is slot ``index`` of the circuit."""

    index: int


Angle = Trainable | Expression | float | None
"""A slot; an expression of features, or of features and slots; a number; or no angle."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate.

    Attributes
    ----------
    name : str
        PennyLane's name.
    wires : tuple of int
        Its qubits.
    angle : Trainable, Expression, float or None
        Its angle in radians.
    matrix : tuple of tuple of complex, optional
        Of a ``QubitUnitary``, which has no angle.
    """

    name: str
    wires: tuple[int, ...]
    angle: Angle = None
    matrix: tuple[tuple[complex, ...], ...] | None = None

    @property
    def needs_features(self) -> bool:
        """Whether its angle depends on the row."""
        return isinstance(self.angle, Expression)

    @property
    def slots(self) -> set[int]:
        """The slots that its angle depends on."""
        if isinstance(self.angle, Expression):
            return {index for kind, index in self.angle.symbols() if kind == "slot"}
        return {self.angle.index} if isinstance(self.angle, Trainable) else set()

    @property
    def is_trainable(self) -> bool:
        """Whether its angle depends on slots."""
        return bool(self.slots)

    @property
    def cnots(self) -> int:
        """CNOTs that it takes."""
        if self.name == UNITARY:
            return KAK_CNOTS if len(self.wires) == 2 else 0
        return CNOT_COST.get(self.name, 0)


@dataclass(frozen=True, slots=True)
class Block:
    """Gates that belong together.

    Attributes
    ----------
    label : str
        What a drawing writes on the block.
    wires : tuple of int
        The qubits that it acts on.
    gates : tuple of Gate
        In order of time.
    """

    label: str
    wires: tuple[int, ...]
    gates: tuple[Gate, ...]

    @property
    def cnots(self) -> int:
        """CNOTs after compiling: the gates', but on one pair of qubits at most three."""
        total = sum(gate.cnots for gate in self.gates)
        return min(total, KAK_CNOTS) if len(self.wires) == 2 else total


def gates_of(blocks: Iterable[Block]) -> Iterator[Gate]:
    """All gates of the blocks, in order of time."""
    for block in blocks:
        yield from block.gates


def one_angle(value: Any) -> Expression | float:
    """Return one angle: an expression or a number.

    Raises
    ------
    UnknownGateError
        If it is an array, or no number.
    """
    single = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(single, Expression):
        return single
    try:
        return float(single)
    except (TypeError, ValueError):
        shape = getattr(value, "shape", None)
        what = f"an array of shape {shape}" if shape else f"a {type(value).__name__}"
        raise UnknownGateError(f"an angle is {what}, not one number") from None


def wire_tuple(wires: Any) -> tuple[int, ...]:
    """Return wires as a tuple, of one or several."""
    return tuple(wires) if isinstance(wires, Iterable) else (wires,)
