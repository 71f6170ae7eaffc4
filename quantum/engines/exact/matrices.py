"""Matrices of a schedule's groups, all built at once from the angles, and their gradient.

Complex matrices are kept as real pairs ``[[Re, -Im], [Im, Re]]``: a product of pairs is the
pair of the product, a transpose the pair of the adjoint, and real matrix products are the
fastest thing a processor does. Gates up to the third with an angle are one factor, a sum of eight
constant matrices. Factors are multiplied into 4x4 blocks and blocks into groups by trees of batched
products, so the number of kernel launches grows with the logarithm of the number of gates. The
gradient walks the trees back by hand, which takes fewer and smaller kernels than autograd.

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
ROTATIONS = 3  # angles of a factor: 2^3 terms cost less than two levels of products


@dataclass(frozen=True)
class MatricesTape:
    """What the gradient needs: each turn's cosine and sine, and the trees' factors by level.

    ``rotations`` has shape (factors, `ROTATIONS`, 2).
    """

    rotations: Tensor
    gates: list[Tensor]
    blocks: list[Tensor]


class GroupMatrices:
    """Builds group matrices and pulls their gradient back to the angles.

    A Pauli rotation is ``cos(t/2) - i sin(t/2) G``, so a product of three and of fixed gates is a
    sum of eight constant matrices, each times a product of three cosines or sines.

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
        self._members = _power_of_two(max(len(group.blocks) for group in groups))
        angle, half, terms = _factor_table([blocks[index] for index in used])
        self._used, self._factors = len(used), len(terms) // len(used)
        self._angle, self._half = angle.to(device), half.to(dtype).to(device)
        self._terms = terms.to(dtype).to(device)
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
        half = (angles.index_select(0, self._angle) * self._half).view(-1, ROTATIONS)
        rotations = torch.stack([half.cos(), half.sin()], dim=2)
        first, second, third = rotations.unbind(1)
        weights = (first[:, :, None] * second[:, None])[..., None] * third[:, None, None]
        flat = torch.bmm(weights.view(-1, 1, 2**ROTATIONS), self._terms)
        blocks, gate_tape = _tree(flat.view(-1, 8, 8), self._factors)
        known = torch.cat([blocks.view(-1), self._ends])
        entries = known.index_select(0, self._gather).view(-1, self.size, self.size)
        groups, block_tape = _tree(entries, self._members)
        return groups, MatricesTape(rotations, gate_tape, block_tape)

    def pull_back(self, gradient: Tensor, tape: MatricesTape, angles: Tensor) -> Tensor:
        """Gradient to the angles, shape (P,), from that to the matrices, same shape as they."""
        entries = _tree_back(gradient, tape.blocks).view(-1)
        repeated = entries.index_select(0, self._scatter).view(self._used, BLOCK, -1)
        flat = _tree_back(repeated.sum(2).view(-1, 8, 8), tape.gates)
        slope = torch.bmm(flat.view(-1, 1, BLOCK), self._terms.mT).view(-1, 2, 2, 2)
        first, second, third = tape.rotations.unbind(1)
        of_third = (slope * (first[:, :, None] * second[:, None])[..., None]).sum((1, 2))
        slope = (slope * third[:, None, None]).sum(3)
        of_first, of_second = (slope * second[:, None]).sum(2), (slope * first[..., None]).sum(1)
        of_rotations = torch.stack([of_first, of_second, of_third], dim=1)
        (of_cos, of_sin), (cos, sin) = of_rotations.unbind(2), tape.rotations.unbind(2)
        each = of_sin * cos - of_cos * sin
        each = each.view(-1).mul_(self._half)
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


def _factor_table(blocks: Sequence[FusedBlock]) -> tuple[Tensor, Tensor, Tensor]:
    """Turn each block's gates into factors, padded with identities to one number a block.

    Returns
    -------
    torch.Tensor, shape (factors `ROTATIONS`,), int64
        Index of each turn's angle.
    torch.Tensor, same shape
        A half, or zero where a factor has fewer rotations.
    torch.Tensor, shape (factors, 2^`ROTATIONS`, `BLOCK`)
        Terms of each factor, the first turn's cosine and sine outermost.
    """
    factored = [_factors(block) for block in blocks]
    length = _power_of_two(max(len(factors) for factors in factored))
    shape = len(blocks), length
    index = torch.zeros(*shape, ROTATIONS, dtype=torch.int64)
    half = torch.zeros(*shape, ROTATIONS, dtype=torch.float64)
    terms = torch.zeros(*shape, 2**ROTATIONS, BLOCK, dtype=torch.float64)
    terms[:, :, 0] = torch.eye(8).reshape(BLOCK)
    for row, factors in enumerate(factored):
        for column, (angles, matrices) in enumerate(factors):
            half[row, column, : len(angles)] = 0.5
            index[row, column, : len(angles)] = torch.tensor(angles, dtype=torch.int64)
            step = 2 ** (ROTATIONS - len(angles))  # the rotations that are missing have no sine
            for number, matrix in enumerate(matrices):
                terms[row, column, step * number] = real_pair(matrix).reshape(BLOCK)
    return index.view(-1), half.view(-1), terms.view(-1, 2**ROTATIONS, BLOCK)


def _factors(block: FusedBlock) -> list[tuple[list[int], list[Tensor]]]:
    """Each factor's angles, by index, and its terms: 4x4 matrices, the first turn outermost."""
    factors: list[tuple[list[int], list[Tensor]]] = [([], [pauli("II")])]
    for gate in block.gates:
        local = tuple(block.wires.index(wire) for wire in gate.wires)
        angles, terms = factors[-1]
        if not isinstance(gate.angle, Trainable):
            terms[:] = [_fixed(gate, local) @ term for term in terms]
            continue
        if len(angles) == ROTATIONS:
            angles, terms = [], [pauli("II")]
            factors.append((angles, terms))
        generator = embed(pauli(GENERATORS[gate.name]), local)
        angles.append(gate.angle.index)
        terms[:] = [turned for term in terms for turned in (term, -1j * generator @ term)]
    return factors


def _fixed(gate: Gate, local: tuple[int, ...]) -> Tensor:
    """4x4 matrix of a gate whose angle, if any, is a number."""
    if gate.angle is None:
        return embed(fixed_matrix(gate), local)
    if not isinstance(gate.angle, float):
        raise ValueError("a trainable layer cannot depend on features")
    half, generator = gate.angle / 2, embed(pauli(GENERATORS[gate.name]), local)
    return math.cos(half) * pauli("II") - 1j * math.sin(half) * generator


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
