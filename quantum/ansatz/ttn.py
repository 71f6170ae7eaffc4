"""Tree tensor network (Grant et al., npj Quantum Information 4, 65, 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from quantum.circuit.parts import BLOCK_ANGLES, BlockKind, convolution, encode
from quantum.circuit.trace import readout_count


@dataclass(frozen=True)
class TreeTensorNetwork:
    """Tree tensor network behind RY(x_i).

    In each level neighbouring qubits meet in a block and the second one goes on, an odd qubit as
    it is, until as many are left as are read out. As many qubits as read-outs: one level of
    blocks, and all of them are read.

    Parameters
    ----------
    block : {"su4", "paper"}
        Two-qubit block, see `quantum.circuit.parts.convolution`.
    readouts : int
        Qubits left at the end, which are read out per class; 0: as many as the classes need.
    """

    block: BlockKind = "su4"
    readouts: int = field(default=0, repr=False)

    uses: ClassVar[tuple[str, ...]] = ("quantum.block",)

    @classmethod
    def from_settings(cls, settings: Any) -> TreeTensorNetwork:
        """Build it from the `quantum` section."""
        return cls(settings.block, 0 if settings.readout == "per-class" else 1)

    def circuit(self, features: Any, weights: Any, wires: Sequence[int], classes: int = 2) -> None:
        """Queue the gates; features of shape (..., n), weights of `shape`."""
        encode(features, wires)
        for angles, pair in zip(weights, _tree(wires, self._left(classes))[0], strict=True):
            convolution(self.block, iter(angles), *pair)

    def shape(self, qubits: int, classes: int = 2) -> tuple[int, int]:
        """Shape of the weights: blocks, and angles of each."""
        return len(_tree(range(qubits), self._left(classes))[0]), BLOCK_ANGLES[self.block]

    def observables(self, wires: Sequence[int], classes: int = 2) -> list[int]:
        """Z on the qubits that are left."""
        return _tree(wires, self._left(classes))[1]

    def describe(self) -> str:
        """Return for instance ``"TTN su4"``."""
        return f"TTN {self.block}"

    def _left(self, classes: int) -> int:
        return self.readouts or readout_count(classes)


def _tree(wires: Sequence[int], readouts: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the pairs in order of time, and the qubits that are left."""
    active = list(wires)
    if readouts == len(active):
        return list(zip(active[::2], active[1::2], strict=False)), active
    pairs: list[tuple[int, int]] = []
    while len(active) > readouts:
        count = min(len(active) // 2, len(active) - readouts)
        level = [(active[2 * k], active[2 * k + 1]) for k in range(count)]
        pairs += level
        active = [second for _, second in level] + active[2 * count :]
    return pairs, active


ANSATZ = TreeTensorNetwork
