"""Fusing a circuit's gates into two-qubit blocks: pure Python, done once per ansatz.

Blocks are the same for every row, so they end where the features are uploaded again. There
``RY(x) = RX(-pi/2) RZ(x) RX(pi/2)``: the fixed layers join the blocks on either side, and what
remains of an upload is diagonal, a phase an amplitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from quantum.circuit.circuit import Circuit
from quantum.circuit.gates import Block, Gate, gates_of


@dataclass(frozen=True)
class FusedBlock:
    """Consecutive gates on one pair of qubits, ``wires[0] < wires[1]``."""

    wires: tuple[int, int]
    gates: tuple[Gate, ...]


def can_fuse(circuit: Circuit) -> bool:
    """Whether the fused engine can run a circuit; any other goes gate by gate.

    Gates act on one or two qubits, features are written at the start only, or later on by the
    whole encoding once more, one RY per qubit.
    """
    if any(len(gate.wires) > 2 for gate in gates_of(circuit.blocks)):
        return False
    again = [block for block in circuit.layers if any(g.needs_features for g in block.gates)]
    if not again:
        return True
    uploads = groupby(circuit.layers, lambda block: block in circuit.encoding)
    gates = list(gates_of(circuit.encoding))
    return (
        all(block in circuit.encoding for block in again)
        and all(tuple(run) == circuit.encoding for is_upload, run in uploads if is_upload)
        and all(gate.name == "RY" for gate in gates)
        and len({gate.wires for gate in gates}) == len(gates)
    )


def fuse_layers(
    layers: Iterable[Block], encoding: tuple[Block, ...], n_qubits: int
) -> tuple[tuple[FusedBlock, ...], tuple[int, ...]]:
    """Fuse an ansatz's layers, and find where the features are uploaded again.

    Parameters
    ----------
    layers : iterable of Block
        In order of time; an upload is all of the encoding's blocks.
    encoding : tuple of Block
        One RY per qubit where it comes again.
    n_qubits : int
        Number of qubits.

    Returns
    -------
    tuple of FusedBlock
        In order of time.
    tuple of int
        For each later upload, exp(-i x Z / 2) on each qubit, the number of blocks before it.

    Raises
    ------
    ValueError
        If part of an encoding comes again, or gates other than RY.
    """
    runs: list[list[Gate]] = [[]]
    for again, run in groupby(layers, lambda block: block in encoding):
        blocks = tuple(run)
        if not again:
            runs[-1] += gates_of(blocks)
            continue
        if blocks != encoding or any(gate.name != "RY" for gate in gates_of(blocks)):
            raise ValueError("a later upload is the whole encoding once more, one RY per qubit")
        runs[-1] += [Gate("RX", gate.wires, math.pi / 2) for gate in gates_of(blocks)]
        runs.append([Gate("RX", gate.wires, -math.pi / 2) for gate in gates_of(blocks)])
    fused: list[FusedBlock] = []
    uploads = []
    for gates in runs:
        uploads.append(len(fused))
        fused += fuse(gates, n_qubits)
    return tuple(fused), tuple(uploads[1:])


def fuse(gates: Iterable[Gate], n_qubits: int) -> tuple[FusedBlock, ...]:
    """Fuse gates greedily into two-qubit blocks.

    A gate joins the latest block on its qubits when no later block lies between; single-qubit
    gates before a qubit's first block wait for it.

    Parameters
    ----------
    gates : iterable of Gate
        In order of time.
    n_qubits : int
        Number of qubits, at least 2.

    Returns
    -------
    tuple of FusedBlock
        In order of time; their product is the circuit.
    """
    blocks: list[tuple[tuple[int, int], list[Gate]]] = []
    latest: dict[int, int] = {}
    waiting: dict[int, list[Gate]] = {wire: [] for wire in range(n_qubits)}
    for gate in gates:
        where = {latest.get(wire) for wire in gate.wires}
        if len(where) == 1 and (index := where.pop()) is not None:
            blocks[index][1].append(gate)
        elif len(gate.wires) == 1:
            waiting[gate.wires[0]].append(gate)
        else:
            _open_block(gate.wires, [gate], blocks, latest, waiting)
    for wire in range(n_qubits):
        if waiting[wire]:
            _open_block((wire, (wire + 1) % n_qubits), [], blocks, latest, waiting)
    return tuple(FusedBlock(pair, tuple(members)) for pair, members in blocks)


def _open_block(
    wires: Sequence[int],
    gates: list[Gate],
    blocks: list[tuple[tuple[int, int], list[Gate]]],
    latest: dict[int, int],
    waiting: dict[int, list[Gate]],
) -> None:
    pair = (min(wires), max(wires))
    members = [gate for wire in pair for gate in waiting[wire]] + gates
    for wire in pair:
        waiting[wire] = []
        latest[wire] = len(blocks)
    blocks.append((pair, members))
