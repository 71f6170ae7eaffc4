"""A traced circuit: gates, read-outs, and how its angles come from the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from quantum.circuit.expression import Expression
from quantum.circuit.gates import Block, gates_of

Readout = tuple[tuple[float, tuple[int, ...]], ...]
"""A sum of products of Z: coefficients, and the qubits of each product."""


@dataclass(frozen=True, repr=False)
class Circuit:
    """What engines, costs and drawings ask of a circuit.

    A weight may be in several angles, and an angle may be computed from weights. Engines know
    slots only: one for each gate with a trained angle, so that the parameter-shift rule and a
    plain chain rule hold whatever a circuit does with its weights. Where each weight is the angle
    of one gate, slots are the weights.

    Attributes
    ----------
    identity : str
        Names the circuit in keys of caches and jobs.
    description : str
        For people, for instance ``"QCNN su4, 4 qubits"``.
    n_qubits : int
        Number of qubits n; rows have as many features.
    shape : tuple of int
        Shape of the weights as the ansatz takes them.
    encoding : tuple of Block
        The first blocks: their angles depend on features only.
    layers : tuple of Block
        All else. Where features are uploaded again, the encoding's blocks may come again.
    readouts : tuple
        R sums of products of Z that are measured, all in the same shots.
    formulas : tuple of Expression, optional
        Each slot from the weights; None: slots are the weights.
    """

    identity: str
    description: str
    n_qubits: int
    shape: tuple[int, ...]
    encoding: tuple[Block, ...]
    layers: tuple[Block, ...]
    readouts: tuple[Readout, ...]
    formulas: tuple[Expression, ...] | None = None

    def __repr__(self) -> str:
        return self.identity

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in order of time."""
        return self.encoding + self.layers

    @property
    def angles(self) -> int:
        """Number of trainable weights P."""
        return math.prod(self.shape)

    @property
    def slots(self) -> int:
        """Number of slots S."""
        return self.angles if self.formulas is None else len(self.formulas)

    @cached_property
    def mixed(self) -> bool:
        """Whether an angle depends on features and weights at once."""
        return any(gate.needs_features and gate.is_trainable for gate in gates_of(self.blocks))

    @cached_property
    def shifts(self) -> int:
        """Gates that a gradient by parameter shift has to shift."""
        return sum(gate.is_trainable for gate in gates_of(self.blocks))

    @cached_property
    def readout_wires(self) -> tuple[int, ...]:
        """Qubits that are measured, in order of the read-outs."""
        wires = (w for readout in self.readouts for _, word in readout for w in word)
        return tuple(dict.fromkeys(wires))

    @cached_property
    def two_qubit_gates(self) -> int:
        """CNOTs per circuit after compiling, encoding included."""
        return sum(block.cnots for block in self.blocks)

    def describe(self) -> str:
        """Return a short name for people."""
        return self.description

    def slot_values(self, weights: Any) -> Any:
        """Compute the slots.

        Parameters
        ----------
        weights : torch.Tensor or numpy.ndarray, shape (..., P)
            The weights, row by row of `shape`.

        Returns
        -------
        torch.Tensor or numpy.ndarray, shape (..., S)
            The slots; differentiable in the weights, and the weights themselves where they can be.
        """
        if self.formulas is None:
            return weights
        values = [formula.value(weights=weights) for formula in self.formulas]
        if isinstance(weights, np.ndarray):
            return np.stack(values, axis=-1)
        import torch

        return torch.stack(values, dim=-1)

    def weights_of(self, block: Block) -> list[int]:
        """Return the indices of the weights that are in a block's angles, sorted."""
        slots = {index for gate in block.gates for index in gate.slots}
        if self.formulas is None:
            return sorted(slots)
        return sorted({i for slot in slots for _, i in self.formulas[slot].symbols()})
