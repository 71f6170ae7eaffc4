"""Circuits as users may write them: shared weights, arithmetic, features and weights at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pennylane as qml

from quantum.circuit import CNOT, RY, block

Wires = list[int]


class SharedWeights:
    """Two weights in seven angles, halved and multiplied."""

    def shape(self, qubits: int, classes: int) -> tuple[int]:
        return (2,)

    def circuit(self, features: Any, weights: Any, wires: Wires) -> None:
        qml.AngleEmbedding(features, wires=wires, rotation="Y")
        for i in wires:
            qml.RY(weights[0] / 2, wires=i)
            qml.CNOT([i, (i + 1) % len(wires)])
            qml.RZ(weights[1], wires=i)
        qml.RX(weights[0] * weights[1], wires=0)


class Reupload:
    """Angles ``w x + b`` in every layer, weights of rank 3."""

    def shape(self, qubits: int, classes: int) -> tuple[int, int, int]:
        return 3, qubits, 2

    def circuit(self, features: Any, weights: Any, wires: Wires) -> None:
        for layer in range(3):
            for i in wires:
                qml.RX(weights[layer, i, 0] * features[i] + weights[layer, i, 1], wires=i)
            for i in wires[1:]:
                qml.CZ([i - 1, i])


class Iqp:
    """PennyLane's templates, read out by Pauli words."""

    def shape(self, qubits: int, classes: int) -> tuple[int, ...]:
        return tuple(qml.StronglyEntanglingLayers.shape(2, qubits))

    def circuit(self, features: Any, weights: Any, wires: Wires) -> None:
        qml.IQPEmbedding(features, wires=wires, n_repeats=2)
        qml.StronglyEntanglingLayers(weights, wires=wires)

    def observables(self, wires: Wires, classes: int) -> list[Any]:
        words = [qml.Z(0) @ qml.Z(1), qml.X(2), qml.Z(0) @ qml.X(2)]
        return words[: 1 if classes == 2 else classes]


class Toffoli:
    """Controlled, adjoint and fixed gates by their matrix; sums of words in X, Y and Z."""

    def shape(self, qubits: int, classes: int) -> int:
        return 6

    def circuit(self, features: Any, weights: Any, wires: Wires) -> None:
        qml.AngleEmbedding(np.sin(features) ** 2 + 0.3, wires=wires, rotation="X")
        qml.U3(weights[0], weights[1], weights[2], wires=0)
        qml.Toffoli(wires=[0, 1, 2])
        qml.U3(weights[3], weights[4], weights[5], wires=2)
        qml.ctrl(qml.RY(weights[0], wires=1), 0)
        qml.adjoint(qml.CRot(weights[1], -weights[2], weights[3], wires=[1, 2]))
        qml.ISWAP([0, 2])
        qml.QubitUnitary(qml.matrix(qml.SISWAP([0, 1])), wires=[2, 0])

    def observables(self, wires: Wires, classes: int) -> list[Any]:
        sums = [0.5 * qml.Z(0) @ qml.Y(1) + qml.X(2), qml.X(2) @ qml.Z(0), qml.Z(0)]
        return sums[: 1 if classes == 2 else classes]


class FeatureGates:
    """Features in two-qubit gates and in products, next to weights; observables by matrix."""

    def shape(self, qubits: int, classes: int) -> tuple[int]:
        return (4,)

    def circuit(self, features: Any, weights: Any, wires: Wires) -> None:
        for i in wires:
            qml.Hadamard(i)
        qml.PhaseShift(features[0] * features[1], wires=1)
        qml.CRX(np.cos(features[2]) / 2, wires=[0, 1])
        qml.SingleExcitation(weights[0], wires=[1, 2])
        qml.MultiRZ(weights[1] ** 2, wires=wires)
        qml.PauliRot(weights[2], "XYZ", wires=wires)
        qml.IsingXY(qml.math.exp(weights[3] / 4) * features[0], wires=[0, 2])

    def observables(self, wires: Wires, classes: int) -> list[Any]:
        seen = [
            qml.Hermitian(np.diag([1.0, 2, 3, -1]), wires=[0, 1]),
            qml.Z(2),
            qml.Projector([1], 0),
        ]
        return seen[: 1 if classes == 2 else classes]


class OwnGates:
    """Our gates and PennyLane's side by side, in blocks, also inside ``qml.adjoint``."""

    def shape(self, qubits: int, classes: int) -> tuple[int, int]:
        return 2, qubits

    def circuit(self, features: Any, weights: Any, wires: Wires) -> None:
        for i in wires:
            RY(features[..., i], i)
        with block("first"):
            RY(weights[0, 0], 0)
            qml.RX(weights[0, 1], wires=1)
            CNOT((0, 1))
        qml.adjoint(RY)(weights[0, 2], 2)
        qml.CNOT([1, 2])
        for i in wires:
            RY(weights[1, i], i)


ODD = (SharedWeights, Reupload, Iqp, Toffoli, FeatureGates, OwnGates)
