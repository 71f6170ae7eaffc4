"""The plain engine: a state vector, gate by gate, with gradients by autograd.

It computes what `ExactEngine` computes, without any of its plans, so it is the version to read.
It is slow, and the tests hold the fast engine to it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quantum.circuit import Circuit, Gate, Trainable, gates_of
from quantum.circuit.matrices import GENERATORS
from quantum.engines.exact.matrices import fixed_matrix, pauli, readout_signs


def reference_expectations(ansatz: Circuit, slots: Tensor, features: np.ndarray) -> Tensor:
    """Compute the expectations of the read-outs.

    Parameters
    ----------
    ansatz : Circuit
        The circuit.
    slots : torch.Tensor, shape (S,), float64
        Slots in radians.
    features : numpy.ndarray, shape (rows, n)
        Features in radians.

    Returns
    -------
    torch.Tensor, shape (rows, R), float64
        Differentiable in the slots as often as wanted.
    """
    n, x = ansatz.n_qubits, torch.from_numpy(np.array(features, dtype=np.float64))
    states = torch.zeros(len(x), 2**n, dtype=torch.complex128)
    states[:, 0] = 1.0  # every qubit in |0>
    for gate in gates_of(ansatz.blocks):
        states = apply_gate(states, gate, gate_matrices(gate, slots, x), n)
    return states.abs().square() @ readout_signs(ansatz.readouts, range(n)).T


def gate_matrices(gate: Gate, slots: Tensor, features: Tensor) -> Tensor:
    """Matrix of a gate for each row, shape (rows, 2^k, 2^k)."""
    if gate.angle is None:
        return fixed_matrix(gate).expand(len(features), -1, -1)
    if isinstance(gate.angle, Trainable):
        angle = slots[gate.angle.index].expand(len(features))
    elif isinstance(gate.angle, float):
        angle = torch.full_like(features[:, 0], gate.angle)
    else:
        angle = gate.angle.value(features, slots)
    half = angle[:, None, None] / 2
    generator = pauli(GENERATORS[gate.name])  # exp(-i angle P / 2) = cos - i sin P, since P P = 1
    return half.cos() * torch.eye(len(generator)) - 1j * half.sin() * generator


def apply_gate(states: Tensor, gate: Gate, matrices: Tensor, n: int) -> Tensor:
    """Multiply the gate's qubits, brought to the front, by the rows' matrices; put them back."""
    front, places = range(1, len(gate.wires) + 1), [wire + 1 for wire in gate.wires]
    view = states.reshape(-1, *[2] * n).movedim(places, tuple(front))
    moved = matrices @ view.reshape(len(states), matrices.shape[-1], -1)
    return moved.reshape(view.shape).movedim(tuple(front), places).reshape(len(states), -1)
