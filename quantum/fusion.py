"""Fusing a circuit's gates into two-qubit blocks: pure Python, done once per ansatz."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantum.gates import Gate


@dataclass(frozen=True)
class FusedBlock:
    """Consecutive gates on one pair of qubits, ``wires[0] < wires[1]``."""

    wires: tuple[int, int]
    gates: tuple[Gate, ...]


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
