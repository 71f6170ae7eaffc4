"""The vocabulary of our circuits: gates, where their angles come from, and blocks of gates.

Plain values without any quantum library: the PennyLane templates and the exact engine both
read them, so a circuit is written down exactly once. Gate names are PennyLane's. Only Pauli
rotations carry angles, so the two-term parameter-shift rule holds for every angle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ROTATIONS = frozenset({"RX", "RY", "RZ", "IsingXX", "IsingYY", "IsingZZ"})
CNOT_COST = {"CNOT": 1, "IsingXX": 2, "IsingYY": 2, "IsingZZ": 2}


@dataclass(frozen=True, slots=True)
class Trainable:
    """The angle is entry ``index`` of the ansatz's angles."""

    index: int


@dataclass(frozen=True, slots=True)
class Linear:
    """The angle is ``factor * x[wire]``, x the features of the row."""

    wire: int
    factor: float

    def value(self, features: Any) -> Any:
        """Angle of each row; ``features`` is any array of shape (..., n)."""
        return self.factor * features[..., self.wire]


@dataclass(frozen=True, slots=True)
class Product:
    """The angle is ``2 (pi - x[first]) (pi - x[second])``, the ZZ feature map's."""

    first: int
    second: int

    def value(self, features: Any) -> Any:
        """Angle of each row; ``features`` is any array of shape (..., n)."""
        return 2.0 * (math.pi - features[..., self.first]) * (math.pi - features[..., self.second])


Angle = Trainable | Linear | Product | float | None


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: PennyLane's name, its wires, and its angle (None: it has none)."""

    name: str
    wires: tuple[int, ...]
    angle: Angle = None


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
    cnots : int
        Two-qubit gates after compiling to CNOTs and single-qubit gates.
    """

    label: str
    wires: tuple[int, ...]
    gates: tuple[Gate, ...]
    cnots: int


def block_of(label: str, wires: Iterable[int], gates: Iterable[Gate]) -> Block:
    """Build a block whose CNOT count is the sum over its gates (an Ising gate costs 2)."""
    sequence = tuple(gates)
    cost = sum(CNOT_COST.get(gate.name, 0) for gate in sequence)
    return Block(label, tuple(wires), sequence, cost)


def gates_of(blocks: Iterable[Block]) -> Iterator[Gate]:
    """All gates of the blocks, in order of time."""
    for block in blocks:
        yield from block.gates


def count_angles(blocks: Iterable[Block]) -> int:
    """Count the trainable angles in the blocks."""
    used = {gate.angle.index for gate in gates_of(blocks) if isinstance(gate.angle, Trainable)}
    return len(used)
