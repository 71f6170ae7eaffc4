"""Variational classifier: ZZ feature map, then real amplitudes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, ClassVar

from quantum.circuit.parts import at_least_one
from quantum.circuit.recorder import CNOT, RY, RZ, Hadamard, IsingZZ, block
from quantum.circuit.trace import readout_count


@dataclass(frozen=True)
class VQC:
    """Variational classifier.

    Feature map, ``feature_reps`` times: H on every qubit, phase 2 x_i, phase
    2 (pi - x_i)(pi - x_j) on every pair i < j (full entanglement, qiskit's default), written as
    RZ and IsingZZ, which equal the phase gates up to a global phase. Real amplitudes: RY on
    every qubit, then ``reps`` times a CNOT ladder (n-2, n-1) ... (0, 1) and RY on every qubit
    (qiskit's default ``reverse_linear``, the same unitary as its full entanglement).
    Read-out: qubits 0 ... R-1, which the ladder makes depend on all qubits soonest.

    Parameters
    ----------
    feature_reps, reps : int
        Repetitions of the feature map and of the real amplitudes.
    readouts : int
        Qubits read out; 0: as many as the classes need.
    """

    feature_reps: int = 1
    reps: int = 3
    readouts: int = field(default=0, repr=False)

    uses: ClassVar[tuple[str, ...]] = ("quantum.feature_reps", "quantum.reps")
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one("quantum.feature_reps", self.feature_reps)
        at_least_one("quantum.reps", self.reps)

    @classmethod
    def from_settings(cls, settings: Any) -> VQC:
        """Build it from the `quantum` section."""
        return cls(settings.feature_reps, settings.reps)

    def circuit(self, features: Any, weights: Any, wires: Sequence[int]) -> None:
        """Queue the gates; features of shape (..., n), weights of `shape`."""
        for _ in range(self.feature_reps):
            with block("ZZ feature map", wires):
                _feature_map(features, wires)
        angles = iter(weights)
        for rep in range(self.reps + 1):
            if rep:
                with block("CNOT ladder", wires):
                    for first, second in reversed(list(pairwise(wires))):
                        CNOT((first, second))
            with block("RY", wires):
                for wire in wires:
                    RY(next(angles), wire)

    def shape(self, qubits: int, classes: int = 2) -> tuple[int]:
        """Shape of the weights."""
        return (qubits * (self.reps + 1),)

    def observables(self, wires: Sequence[int], classes: int = 2) -> list[int]:
        """Z on the first qubits."""
        return list(wires[: self.readouts or readout_count(classes)])

    def describe(self) -> str:
        """Return ``"VQC"``."""
        return "VQC"


def _feature_map(features: Any, wires: Sequence[int]) -> None:
    x = [features[..., place] for place in range(len(wires))]
    for wire in wires:
        Hadamard(wire)
    for place, wire in enumerate(wires):
        RZ(2.0 * x[place], wire)
    for i, j in combinations(range(len(wires)), 2):
        IsingZZ(2.0 * (math.pi - x[i]) * (math.pi - x[j]), (wires[i], wires[j]))


ANSATZ = VQC
