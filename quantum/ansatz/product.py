"""A circuit without entanglement: the control of every claim about entanglement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quantum.circuit.parts import at_least_one, encode, rotate, uploads_fit
from quantum.circuit.trace import readout_count


@dataclass(frozen=True)
class Product:
    """Single-qubit rotations only: RY(x_i), then layers of RZ RY RZ on every qubit.

    States stay products, and all features still count: a logit is a sum of one function for each
    feature. With a read-out per class two classes read the mean of all qubits' Z; of more, class c
    reads the Z of qubits c, c + C, c + 2 C ... minus those of the others, divided by n.

    Parameters
    ----------
    reps : int
        Number of layers, 3 n weights each: 5 layers of 4 qubits have the 60 weights of the QCNN
        of 4 qubits without poolings, 7 the 84 of that with them.
    uploads : int
        The features are written before each of the first ``uploads`` layers. Layers that no
        upload parts are one rotation with more parameters.
    """

    reps: int = 3
    uploads: int = 1

    uses: ClassVar[tuple[str, ...]] = ("quantum.reps", "quantum.uploads")
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one("quantum.reps", self.reps)
        uploads_fit(self.uploads, self.reps)

    @classmethod
    def from_settings(cls, settings: Any) -> Product:
        """Build it from the `quantum` section."""
        return cls(settings.reps, settings.uploads)

    def circuit(self, features: Any, weights: Any, wires: Sequence[int]) -> None:
        """Queue the gates; features of shape (..., n), weights of `shape`."""
        for layer in range(self.reps):
            if layer < self.uploads:
                encode(features, wires)
            for place, wire in enumerate(wires):
                rotate(iter(weights[layer, place]), wire)

    def shape(self, qubits: int, classes: int = 2) -> tuple[int, int, int]:
        """Shape of the weights."""
        return self.reps, qubits, 3

    def observables(self, wires: Sequence[int], classes: int = 2) -> list[dict[int, float]]:
        """Return sums of all qubits' Z, one for each read-out."""
        count, each = readout_count(classes), 1 / len(wires)
        return [
            {wire: each if i % count == c else -each for i, wire in enumerate(wires)}
            for c in range(count)
        ]

    def describe(self) -> str:
        """Return for instance ``"product, 3 layers"``."""
        return f"product, {self.reps} layers"


ANSATZ = Product
