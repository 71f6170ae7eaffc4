"""Quantum convolutional network: two-qubit blocks on a ring, poolings that halve the qubits.

A QCNN may upload its features several times (Perez-Salinas et al., arXiv 1907.02085): a read-out
is a Fourier series in each feature, its degree the number of uploads (Schuld et al., arXiv
2008.08605).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from quantum.circuit.parts import (
    BLOCK_ANGLES,
    POOLING_ANGLES,
    BlockKind,
    at_least_one,
    convolution,
    encode,
    pooling,
    ring,
)
from quantum.circuit.trace import readout_count

UPLOAD, CONVOLUTION, POOLING = "upload", "convolution", "pooling"
Step = tuple[str, tuple[int, int]]


@dataclass(frozen=True)
class QCNN:
    """Quantum convolutional network.

    Angle encoding RY(x_i), for each further upload behind a ring of convolution blocks of its
    own; then per layer a ring of two-qubit convolution blocks over the active qubits (even
    pairs, odd pairs, an odd ring's closing pair; two qubits: one block) and a pooling that
    halves the active qubits, until as many are left as are read out; at last a ring over the
    retained qubits where more than one is retained. A pooling block writes onto the qubit that it
    keeps, and the retained qubits are the ones read out.

    Parameters
    ----------
    block : {"su4", "paper"}
        Convolution block, see `quantum.circuit.parts.convolution`.
    uploads : int
        Times that the features are written into the state. Later uploads have no trainable
        angles of their own: the ``su4`` blocks between hold every single-qubit rotation.
    readouts : int
        Qubits retained, which are read out per class; 0: as many as the classes need.
    pooling : bool
        Whether qubits are pooled away. A linear head, which reads them all, takes the place of
        poolings and of the rings behind them.
    """

    block: BlockKind = "su4"
    uploads: int = 1
    readouts: int = field(default=0, repr=False)
    pooling: bool = True

    uses: ClassVar[tuple[str, ...]] = ("quantum.block", "quantum.uploads")

    def __post_init__(self) -> None:
        at_least_one("quantum.uploads", self.uploads)

    @classmethod
    def from_settings(cls, settings: Any) -> QCNN:
        """Build it from the `quantum` section."""
        return cls(settings.block, settings.uploads, pooling=settings.readout == "per-class")

    def circuit(self, features: Any, weights: Any, wires: Sequence[int], classes: int = 2) -> None:
        """Queue the gates; features of shape (..., n), weights of `shape`."""
        angles = iter(weights)
        for kind, (first, second) in self._steps(wires, classes)[0]:
            if kind == UPLOAD:
                encode(features, wires)
            elif kind == CONVOLUTION:
                convolution(self.block, angles, first, second)
            else:
                pooling(angles, first, second)

    def shape(self, qubits: int, classes: int = 2) -> tuple[int]:
        """Shape of the weights: 15 or 3 a convolution block, 3 a pooling block."""
        each = {UPLOAD: 0, CONVOLUTION: BLOCK_ANGLES[self.block], POOLING: POOLING_ANGLES}
        return (sum(each[kind] for kind, _ in self._steps(range(qubits), classes)[0]),)

    def observables(self, wires: Sequence[int], classes: int = 2) -> list[int]:
        """Z on each retained qubit."""
        return self._steps(wires, classes)[1]

    def describe(self) -> str:
        """Return for instance ``"QCNN su4"`` or ``"QCNN su4, 2 uploads"``."""
        return f"QCNN {self.block}" + (f", {self.uploads} uploads" if self.uploads > 1 else "")

    def _steps(self, wires: Sequence[int], classes: int) -> tuple[list[Step], list[int]]:
        """Return what is done in order of time, and the qubits that are left."""
        readouts = self.readouts or readout_count(classes) if self.pooling else len(wires)
        active = list(wires)
        steps: list[Step] = []
        for _ in range(self.uploads):
            steps.append((UPLOAD, (active[0], active[0])))
            steps += [(CONVOLUTION, pair) for pair in ring(active)]
        while len(active) > readouts:
            pools = min(len(active) // 2, len(active) - readouts)
            sources, targets = active[: 2 * pools : 2], active[1 : 2 * pools : 2]
            steps += [(POOLING, pair) for pair in zip(sources, targets, strict=True)]
            active = targets + active[2 * pools :]
            steps += [(CONVOLUTION, pair) for pair in ring(active)]
        return steps, active


ANSATZ = QCNN
