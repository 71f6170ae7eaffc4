"""Layers of free rotations and a ring of CNOTs (Schuld et al., arXiv 1804.00633)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quantum.circuit.parts import at_least_one, encode, rotate, uploads_fit
from quantum.circuit.recorder import CNOT


@dataclass(frozen=True)
class StronglyEntangling:
    """Strongly entangling layers: PennyLane's ``StronglyEntanglingLayers`` behind RY(x_i).

    Layer l, from 0: RZ RY RZ on every qubit, then a CNOT from each qubit i to qubit i + r, modulo
    n, with r = l mod (n - 1) + 1. Read-out: the last qubits.

    Parameters
    ----------
    reps : int
        Number of layers.
    uploads : int
        The features are written before each of the first ``uploads`` layers.
    """

    reps: int = 3
    uploads: int = 1

    uses: ClassVar[tuple[str, ...]] = ("quantum.reps", "quantum.uploads")
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one("quantum.reps", self.reps)
        uploads_fit(self.uploads, self.reps)

    @classmethod
    def from_settings(cls, settings: Any) -> StronglyEntangling:
        """Build it from the `quantum` section."""
        return cls(settings.reps, settings.uploads)

    def circuit(self, features: Any, weights: Any, wires: Sequence[int]) -> None:
        """Queue the gates; features of shape (..., n), weights of `shape`."""
        size = len(wires)
        for layer in range(self.reps):
            if layer < self.uploads:
                encode(features, wires)
            for place, wire in enumerate(wires):
                rotate(iter(weights[layer, place]), wire)
            reach = layer % (size - 1) + 1
            for place in range(size):
                CNOT((wires[place], wires[(place + reach) % size]))

    def shape(self, qubits: int, classes: int = 2) -> tuple[int, int, int]:
        """Shape of the weights."""
        return self.reps, qubits, 3

    def describe(self) -> str:
        """Return for instance ``"strongly entangling, 3 layers"``."""
        return f"strongly entangling, {self.reps} layers"


ANSATZ = StronglyEntangling
