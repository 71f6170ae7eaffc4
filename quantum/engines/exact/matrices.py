"""Matrices of a schedule's groups, all built at once from the angles, and their gradient.

Complex matrices are kept as real pairs ``[[Re, -Im], [Im, Re]]``: a product of pairs is the
pair of the product, a transpose the pair of the adjoint, and real matrix products are the
fastest thing a processor does. Gates are multiplied into 4x4 blocks and blocks into groups by
trees of batched products, so the number of kernel launches grows with the logarithm of the
number of gates. The gradient walks the trees back by hand, which takes fewer and smaller
kernels than autograd.

A matrix acts on (first wire, second wire), the first being the more significant bit, as PennyLane
orders them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantum.circuit.circuit import Readout
from quantum.circuit.gates import Gate, Trainable
from quantum.circuit.matrices import GENERATORS, fixed_gate_matrix, pauli_matrix
from quantum.engines.exact.fusion import FusedBlock
from quantum.engines.exact.schedule import Group

BLOCK = 64  # entries of a 4x4 complex matrix as a real pair


@dataclass(frozen=True)
class MatricesTape:
    """What the gradient needs: sines and cosines, and the factors at each level of the trees."""

    cosines: Tensor
    sines: Tensor
    gates: list[Tensor]
    blocks: list[Tensor]


class GroupMatrices:
    """Builds group matrices and pulls their gradient back to the angles.

    Every gate is ``A + cos(t/2) C + sin(t/2) S`` with constant A, C, S (a Pauli rotation has
    A = 0, C = 1, S = -iG).

    Parameters
    ----------
    blocks : sequence of FusedBlock
        All blocks.
    groups : sequence of Group
        G groups of k qubits each.
    dtype : torch.dtype
        Real type.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self,
        blocks: Sequence[FusedBlock],
        groups: Sequence[Group],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        used = [index for group in groups for index in group.blocks]
        self._gates = _power_of_two(max(len(blocks[index].gates) for index in used))
        self._members = _power_of_two(max(len(group.blocks) for group in groups))
        angle, parts = _gate_table([blocks[index] for index in used], self._gates)
        self._angle = angle.to(device)
        self._constant, self._cosine, self._sine = parts.to(dtype).to(device)
        place = {index: row for row, index in enumerate(used)}
        self.size = 2 * 2 ** len(groups[0].wires)
        gather = _group_table(blocks, groups, place, self._members).reshape(-1)
        self._gather = gather.to(device)
        self._scatter = _occurrences(gather, len(used) * BLOCK).to(device)
        self._ends = torch.tensor([0.0, 1.0], dtype=dtype, device=device)

    def build(self, angles: Tensor) -> tuple[Tensor, MatricesTape]:
        """Build all matrices.

        Parameters
        ----------
        angles : torch.Tensor, shape (P,)
            Angles in radians.

        Returns
        -------
        torch.Tensor, shape (G, 2 2^k, 2 2^k)
            The matrices, as real pairs.
        MatricesTape
            For `pull_back`.
        """
        half = angles.index_select(0, self._angle).mul_(0.5)[:, None]
        cosines, sines = half.cos(), half.sin()
        flat = torch.addcmul(self._constant, cosines, self._cosine).addcmul_(sines, self._sine)
        blocks, gate_tape = _tree(flat.view(-1, 8, 8), self._gates)
        known = torch.cat([blocks.view(-1), self._ends])
        entries = known.index_select(0, self._gather).view(-1, self.size, self.size)
        groups, block_tape = _tree(entries, self._members)
        return groups, MatricesTape(cosines, sines, gate_tape, block_tape)

    def pull_back(self, gradient: Tensor, tape: MatricesTape, angles: Tensor) -> Tensor:
        """Gradient to the angles, shape (P,), from that to the matrices, same shape as they."""
        entries = _tree_back(gradient, tape.blocks).view(-1)
        repeated = entries.index_select(0, self._scatter).view(len(self._angle) // self._gates, -1)
        blocks = repeated.view(len(repeated), BLOCK, -1).sum(2).view(-1, 8, 8)
        flat = _tree_back(blocks, tape.gates).view(-1, BLOCK)
        slope = torch.mul(self._sine, tape.cosines)
        slope.addcmul_(self._cosine, tape.sines, value=-1.0)
        each = slope.mul_(flat).sum(1).mul_(0.5)
        return torch.zeros_like(angles).index_add_(0, self._angle, each)


def real_pair(matrix: Tensor) -> Tensor:
    """``[[Re, -Im], [Im, Re]]`` of a complex matrix, float64."""
    upper = torch.cat([matrix.real, -matrix.imag], dim=1)
    return torch.cat([upper, torch.cat([matrix.imag, matrix.real], dim=1)])


def _tree(factors: Tensor, length: int) -> tuple[Tensor, list[Tensor]]:
    """Multiply each ``length`` consecutive factors, later ones from the left.

    Returns the products, and each level's factors in pairs for `_tree_back`.
    """
    tape = []
    size = factors.shape[-1]
    while length > 1:
        pairs = factors.view(-1, 2, size, size)
        tape.append(pairs)
        factors = torch.bmm(pairs[:, 1], pairs[:, 0])
        length //= 2
    return factors, tape


def _tree_back(gradient: Tensor, tape: Sequence[Tensor]) -> Tensor:
    """Gradient to all factors of `_tree`."""
    for pairs in reversed(tape):
        earlier = torch.bmm(pairs[:, 1].mT, gradient)
        later = torch.bmm(gradient, pairs[:, 0].mT)
        gradient = torch.stack([earlier, later], dim=1).flatten(0, 1)
    return gradient


def _gate_table(blocks: Sequence[FusedBlock], length: int) -> tuple[Tensor, Tensor]:
    """Angle index and A, C, S of each gate; blocks padded with identities to ``length``."""
    index = torch.zeros(len(blocks), length, dtype=torch.int64)
    parts = torch.zeros(3, len(blocks), length, BLOCK, dtype=torch.float64)
    parts[0] = torch.eye(8).reshape(BLOCK)
    for row, block in enumerate(blocks):
        for column, gate in enumerate(block.gates):
            local = tuple(block.wires.index(wire) for wire in gate.wires)
            for part, matrix in enumerate(_gate_parts(gate, local)):
                parts[part, row, column] = real_pair(matrix).reshape(BLOCK)
            if isinstance(gate.angle, Trainable):
                index[row, column] = gate.angle.index
    return index.reshape(-1), parts.reshape(3, -1, BLOCK)


def _gate_parts(gate: Gate, local: tuple[int, ...]) -> Tensor:
    parts = torch.zeros(3, 4, 4, dtype=torch.complex128)
    if gate.angle is None:
        parts[0] = embed(fixed_matrix(gate), local)
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


def _group_table(
    blocks: Sequence[FusedBlock], groups: Sequence[Group], place: dict[int, int], length: int
) -> Tensor:
    """Where each entry of each block's matrix on its group's qubits comes from.

    Positions in the blocks' entries, one behind another; behind them a zero and a one. Shape
    (groups, length, size, size); missing blocks are identities.
    """
    k = len(groups[0].wires)
    size = 2 * 2**k
    zero = len(place) * BLOCK
    identity = torch.full((size, size), zero)
    identity.fill_diagonal_(zero + 1)
    table = identity.expand(len(groups), length, size, size).clone()
    for row, group in enumerate(groups):
        for column, index in enumerate(group.blocks):
            first, second = (k - 1 - group.wires.index(w) for w in blocks[index].wires)
            table[row, column] = _embedding(k, first, second, place[index] * BLOCK, zero)
    return table


def _embedding(k: int, first: int, second: int, start: int, zero: int) -> Tensor:
    """Positions of a block's entries in its matrix on k qubits; bits counted from the right."""
    basis = torch.arange(2 * 2**k)
    part, state = basis >> k, basis & (2**k - 1)
    row = 4 * part + 2 * (state >> first & 1) + (state >> second & 1)
    rest = state & ~(1 << first | 1 << second)
    same = rest[:, None] == rest[None, :]
    return torch.where(same, start + 8 * row[:, None] + row[None, :], zero)


def _occurrences(gather: Tensor, entries: int) -> Tensor:
    """Positions in ``gather`` of each of the first ``entries`` values, one after another."""
    order = torch.argsort(gather, stable=True)
    return order[gather[order] < entries]


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def pauli(word: str) -> Tensor:
    """Matrix of a Pauli word, complex128, shape (2^k, 2^k)."""
    return torch.from_numpy(pauli_matrix(word))


def fixed_matrix(gate: Gate) -> Tensor:
    """Matrix of a gate without angle, complex128."""
    return torch.from_numpy(fixed_gate_matrix(gate))


def embed(matrix: Tensor, local: tuple[int, ...]) -> Tensor:
    """Embed a gate's matrix into its block: 4x4, the gate on local wires 0, 1 or both."""
    if len(local) == 1:
        factors = (matrix, pauli("I")) if local == (0,) else (pauli("I"), matrix)
        return torch.kron(*factors)
    if local == (0, 1):
        return matrix
    return matrix.reshape(2, 2, 2, 2).permute(1, 0, 3, 2).reshape(4, 4)


def z_signs(wires: Sequence[int], n_qubits: int) -> Tensor:
    """Diagonal of the product of Z on some qubits, float64, shape (2^n,)."""
    basis = torch.arange(2**n_qubits)
    parity = torch.zeros_like(basis)
    for wire in wires:
        parity += (basis >> (n_qubits - 1 - wire)) & 1
    return 1.0 - 2.0 * (parity % 2).to(torch.float64)


def readout_signs(readouts: Sequence[Readout], order: Sequence[int]) -> Tensor:
    """Diagonals of read-outs on qubits in an order, float64, shape (R, 2^len(order))."""
    diagonals = []
    for readout in readouts:
        terms = [f * z_signs([order.index(w) for w in word], len(order)) for f, word in readout]
        diagonals.append(torch.stack(terms).sum(0))
    return torch.stack(diagonals)
