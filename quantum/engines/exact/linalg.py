"""Torch building blocks of the exact engine: gates' matrices and encoded states.

Conventions: a matrix acts on (first wire, second wire), the first being the more significant
bit, as PennyLane orders them. Rows of a data set are the last axis of states.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from quantum.ansatz.gates import Block, Gate, Linear, Product, gates_of

PAULI = {
    "I": ((1, 0), (0, 1)),
    "X": ((0, 1), (1, 0)),
    "Y": ((0, -1j), (1j, 0)),
    "Z": ((1, 0), (0, -1)),
}
GENERATORS = {"RX": "X", "RY": "Y", "RZ": "Z", "IsingXX": "XX", "IsingYY": "YY", "IsingZZ": "ZZ"}
DIAGONAL = frozenset({"RZ", "IsingZZ"})


def pauli(word: str) -> torch.Tensor:
    """Matrix of a Pauli word, complex128, shape (2^k, 2^k)."""
    factors = [torch.tensor(PAULI[letter], dtype=torch.complex128) for letter in word]
    return functools.reduce(torch.kron, factors)


def fixed_matrix(name: str) -> torch.Tensor:
    """Matrix of a gate without angle, complex128."""
    if name == "Hadamard":
        return (pauli("X") + pauli("Z")) / math.sqrt(2)
    if name == "CNOT":
        return (pauli("II") + pauli("ZI") + pauli("IX") - pauli("ZX")) / 2
    raise ValueError(f"no matrix for gate {name}")


def embed(matrix: torch.Tensor, local: tuple[int, ...]) -> torch.Tensor:
    """Embed a gate's matrix into its block: 4x4, the gate on local wires 0, 1 or both."""
    identity = torch.eye(2, dtype=matrix.dtype)
    if local == (0,):
        return torch.kron(matrix, identity)
    if local == (1,):
        return torch.kron(identity, matrix)
    if local == (0, 1):
        return matrix
    return matrix.reshape(2, 2, 2, 2).permute(1, 0, 3, 2).reshape(4, 4)


def is_real_product(encoding: Sequence[Block]) -> bool:
    """Whether the encoding is one RY per qubit, thus a real product state."""
    gates = list(gates_of(encoding))
    wires = [gate.wires for gate in gates]
    return all(gate.name == "RY" for gate in gates) and len(set(wires)) == len(wires)


def product_states(
    encoding: Sequence[Block], wires: Sequence[int], features: torch.Tensor
) -> torch.Tensor:
    """Real product states of some qubits.

    Parameters
    ----------
    encoding : sequence of Block
        One RY per qubit.
    wires : sequence of int
        Qubits, first most significant.
    features : torch.Tensor, shape (rows, n), float64
        Features.

    Returns
    -------
    torch.Tensor, shape (2^len(wires), rows)
        Each amplitude the product of cos x/2 or sin x/2.
    """
    angles = {gate.wires[0]: _values(gate, features) / 2 for gate in gates_of(encoding)}
    states = torch.ones(1, len(features), dtype=features.dtype, device=features.device)
    for wire in wires:
        factor = torch.stack([angles[wire].cos(), angles[wire].sin()])
        states = (states[:, None] * factor[None]).flatten(0, 1)
    return states


def upload_phases(
    encoding: Sequence[Block], wires: Sequence[int], features: torch.Tensor
) -> torch.Tensor:
    """Diagonal of exp(-i x Z / 2) on some qubits, x the angles of the encoding's RY there.

    Parameters
    ----------
    encoding, wires, features
        As for `product_states`.

    Returns
    -------
    torch.Tensor, shape (2 2^len(wires), rows)
        Real parts, then imaginary parts.
    """
    angles = {gate.wires[0]: _values(gate, features) for gate in gates_of(encoding)}
    signs = torch.stack([z_signs((place,), len(wires)) for place in range(len(wires))], dim=1)
    half = signs.to(features) @ torch.stack([angles[wire] for wire in wires]) / 2
    return torch.cat([half.cos(), -half.sin()])


def encoded_states(
    encoding: Sequence[Block], n_qubits: int, features: torch.Tensor
) -> torch.Tensor:
    """State vectors of encoded rows.

    Runs of diagonal gates become one matrix product of their angles with a table of signs, so
    the ZZ feature map costs two passes whatever its number of gates.

    Parameters
    ----------
    encoding : sequence of Block
        Feature blocks.
    n_qubits : int
        Number of qubits.
    features : torch.Tensor, shape (rows, n), float64
        Features.

    Returns
    -------
    torch.Tensor, shape (2^n, rows), complex128
        The states.
    """
    rows = len(features)
    states = torch.zeros(2**n_qubits, rows, dtype=torch.complex128, device=features.device)
    states[0] = 1.0
    for diagonal, run in itertools.groupby(gates_of(encoding), lambda g: g.name in DIAGONAL):
        gates = list(run)
        if diagonal:
            table = torch.stack([z_signs(gate.wires, n_qubits) for gate in gates], dim=1)
            phases = torch.stack([_values(gate, features) for gate in gates])
            total = table.to(features) @ phases / 2
            states = states * torch.polar(torch.ones_like(total), -total)
            continue
        for gate in gates:
            states = _apply_single(states, gate, features, n_qubits)
    return states


def z_signs(wires: Sequence[int], n_qubits: int) -> torch.Tensor:
    """Diagonal of the product of Z on some qubits, float64, shape (2^n,)."""
    basis = torch.arange(2**n_qubits)
    parity = sum(((basis >> (n_qubits - 1 - wire)) & 1) for wire in wires)
    return 1.0 - 2.0 * torch.as_tensor(parity % 2, dtype=torch.float64)


def _values(gate: Gate, features: torch.Tensor) -> torch.Tensor:
    angle = gate.angle
    if isinstance(angle, Linear | Product):
        value: Any = angle.value(features)
        return torch.as_tensor(value)
    if isinstance(angle, float):
        return torch.full_like(features[:, 0], angle)
    raise ValueError("an encoding gate depends on features only")


def _apply_single(
    states: torch.Tensor, gate: Gate, features: torch.Tensor, n_qubits: int
) -> torch.Tensor:
    """Apply a Hadamard, RX or RY, with its own angle for each row."""
    view = states.reshape(2 ** gate.wires[0], 2, -1, states.shape[1])
    if gate.angle is None:
        matrix = fixed_matrix(gate.name).to(states.device)
        return torch.einsum("ij,ajbr->aibr", matrix, view).reshape(states.shape)
    half = _values(gate, features) / 2
    generator = pauli(GENERATORS[gate.name]).to(states.device)
    eye = torch.eye(2, dtype=states.dtype, device=states.device)
    matrices = half.cos() * eye[..., None] - 1j * half.sin() * generator[..., None]
    return torch.einsum("ijr,ajbr->aibr", matrices, view).reshape(states.shape)
