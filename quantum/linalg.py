"""Torch building blocks of the exact engine: matrices of all blocks at once, encoded states.

Conventions: a block's matrix acts on (first wire, second wire), the first being the more
significant bit, as PennyLane orders them. Rows of a data set are the last axis of states.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from quantum.fusion import FusedBlock, Plan
from quantum.gates import Block, Gate, Linear, Product, Trainable, gates_of

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


class BlockMatrices:
    """Matrices of all fused blocks, built together from the angles.

    Every gate matrix is ``A + cos(t/2) C + sin(t/2) S`` with constant A, C, S (a Pauli rotation
    has A = 0, C = 1, S = -iG), so one gather, one cosine and one sine serve all gates; blocks
    are padded with identities to a power of two and reduced by a tree of batched products.

    Parameters
    ----------
    blocks : sequence of FusedBlock
        B blocks.
    dtype : torch.dtype
        complex64 or complex128.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self, blocks: Sequence[FusedBlock], dtype: torch.dtype, device: torch.device
    ) -> None:
        longest = max(len(block.gates) for block in blocks)
        length = 1 << (longest - 1).bit_length()
        shape = (len(blocks), length)
        index = torch.zeros(shape, dtype=torch.int64)
        parts = torch.zeros(3, *shape, 4, 4, dtype=torch.complex128)
        parts[0] = torch.eye(4)
        for row, block in enumerate(blocks):
            for column, gate in enumerate(block.gates):
                local = tuple(block.wires.index(wire) for wire in gate.wires)
                parts[:, row, column] = _gate_parts(gate, local)
                if isinstance(gate.angle, Trainable):
                    index[row, column] = gate.angle.index
        self._index = index.to(device)
        self._flat = parts.to(dtype).to(device).reshape(3, len(blocks) * length, 16)
        self._shape = shape

    def __call__(self, angles: torch.Tensor) -> torch.Tensor:
        """Build all matrices.

        Parameters
        ----------
        angles : torch.Tensor, shape (P,)
            Real angles in radians.

        Returns
        -------
        torch.Tensor, shape (B, 4, 4)
            Complex matrices, differentiable.
        """
        half = angles[self._index.reshape(-1), None] / 2
        constant, cosine, sine = self._flat
        flat = constant + half.cos() * cosine + half.sin() * sine
        product: torch.Tensor = flat.reshape(*self._shape, 4, 4)
        while product.shape[1] > 1:
            product = product[:, 1::2] @ product[:, 0::2]
        return product[:, 0]


def _gate_parts(gate: Gate, local: tuple[int, ...]) -> torch.Tensor:
    parts = torch.zeros(3, 4, 4, dtype=torch.complex128)
    if gate.angle is None:
        parts[0] = embed(fixed_matrix(gate.name), local)
        return parts
    generator = embed(pauli(GENERATORS[gate.name]), local)
    if isinstance(gate.angle, Trainable):
        parts[1], parts[2] = pauli("II"), -1j * generator
    elif isinstance(gate.angle, float):
        half = gate.angle / 2
        parts[0] = math.cos(half) * pauli("II") - 1j * math.sin(half) * generator
    else:
        raise ValueError("a trainable layer cannot depend on features")
    return parts


class PauliTransfer:
    """Heisenberg action of two-qubit unitaries on Pauli words.

    ``T[Q, P] = tr(Q U+ P U) / 4``: the word P before becomes sum_Q T[Q, P] Q, real.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        words = ["".join(pair) for pair in itertools.product("IXYZ", repeat=2)]
        basis = torch.stack([pauli(word).reshape(16) for word in words])
        self._left = (basis.conj() / 4).to(dtype).to(device)
        self._right = basis.T.contiguous().to(dtype).to(device)

    def __call__(self, matrices: torch.Tensor) -> torch.Tensor:
        """Transfer matrices, real, shape (B, 16, 16), of unitaries of shape (B, 4, 4)."""
        daggers, transposed = matrices.conj().transpose(1, 2), matrices.transpose(1, 2)
        both = daggers[:, :, None, :, None] * transposed[:, None, :, None, :]
        return (self._left @ both.reshape(-1, 16, 16) @ self._right).real


def run_plan(tensor: torch.Tensor, matrices: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Contract matrices with a tensor, move after move.

    Parameters
    ----------
    tensor : torch.Tensor, shape (N, tail)
        State vectors (tail: rows) or observables (tail: read-outs).
    matrices : torch.Tensor, shape (B, k, k)
        Matrices of the blocks.
    plan : Plan
        What to do.

    Returns
    -------
    torch.Tensor, shape (M, tail)
        The result; its axes are ``plan.wires``.
    """
    tail = tensor.shape[-1]
    each = matrices.unbind(0)
    for move in plan.moves:
        if move.order:
            axes = (*move.order, len(move.order))
            tensor = tensor.reshape(*move.sizes, tail).permute(axes)
        matrix = each[move.block]
        if move.outputs:
            matrix = matrix[list(move.outputs)]
        if move.inputs:
            matrix = matrix[:, list(move.inputs)]
        if move.before == 1:
            tensor = matrix @ tensor.reshape(move.inside, -1)
        else:
            tensor = matrix @ tensor.reshape(move.before, move.inside, -1)
    return tensor.reshape(-1, tail)


def is_real_product(encoding: Sequence[Block]) -> bool:
    """Whether the encoding is one RY per qubit, thus a real product state."""
    gates = list(gates_of(encoding))
    wires = [gate.wires for gate in gates]
    return all(gate.name == "RY" for gate in gates) and len(set(wires)) == len(wires)


def product_words(
    encoding: Sequence[Block], wires: Sequence[int], features: torch.Tensor
) -> torch.Tensor:
    """Compute the expectations of all words of I, X, Z in real product states.

    Parameters
    ----------
    encoding : sequence of Block
        One RY per qubit.
    wires : sequence of int
        Qubits of the words, in order.
    features : torch.Tensor, shape (rows, n), float64
        Features.

    Returns
    -------
    torch.Tensor, shape (rows, 3^len(wires))
        Each the product of 1, sin x or cos x.
    """
    angles = {gate.wires[0]: _values(gate, features) for gate in gates_of(encoding)}
    words = torch.ones(len(features), 1, dtype=features.dtype, device=features.device)
    for wire in wires:
        x = angles[wire]
        factor = torch.stack([torch.ones_like(x), x.sin(), x.cos()], dim=1)
        words = (words[:, :, None] * factor[:, None, :]).flatten(1)
    return words


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


def pauli_words(states: torch.Tensor, wires: Sequence[int]) -> torch.Tensor:
    """Compute the expectations of all Pauli words on some qubits.

    Parameters
    ----------
    states : torch.Tensor, shape (2^n, rows), complex128
        States.
    wires : sequence of int
        Qubits of the words, in order.

    Returns
    -------
    torch.Tensor, shape (rows, 4^len(wires)), float64
        The expectations.
    """
    n_qubits = states.shape[0].bit_length() - 1
    table = torch.stack([pauli(letter) for letter in "IXYZ"]).to(states)
    order = [*wires, *(wire for wire in range(n_qubits) if wire not in set(wires))]
    axes = [n_qubits, *order]
    ordered = states.reshape(*[2] * n_qubits, -1).permute(axes).reshape(-1, 2**n_qubits)
    size = 2 ** len(wires)
    kets = ordered.reshape(len(ordered), size, -1)
    words = torch.einsum("rje,rie->rij", kets, kets.conj())
    words = words.reshape(len(ordered), 1, size, size)
    for _ in wires:
        rows, done, size, _ = words.shape
        split = words.reshape(rows, done, 2, size // 2, 2, size // 2)
        words = torch.einsum("pij,rdixjy->rdpxy", table, split)
        words = words.reshape(rows, done * 4, size // 2, size // 2)
    return words.reshape(len(ordered), -1).real


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
