"""Fusing a circuit's gates into two-qubit blocks, and planning how blocks meet a tensor.

Pure Python, done once per ansatz. Two plans come out: `forward_plan` moves a state through
the circuit, `backward_plan` moves the observables back through it (Heisenberg picture) and
skips every block outside their light cone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from quantum.gates import Gate

PAULIS = 4  # I, X, Y, Z: entries of one qubit's axis in the Heisenberg picture
WITHOUT_Y = (0, 1, 3)  # what a real product state can see of one qubit's axis


@dataclass(frozen=True)
class FusedBlock:
    """Consecutive gates on one pair of qubits, ``wires[0] < wires[1]``."""

    wires: tuple[int, int]
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class Move:
    """One contraction of a block's matrix with a tensor.

    Attributes
    ----------
    block : int
        Which matrix.
    sizes, order : tuple of int
        Sizes of the tensor's axes before the move, and the order to bring them into first;
        empty: already in order.
    before, inside : int
        The tensor is seen as (before, inside, rest) and the matrix acts on ``inside``.
    outputs, inputs : tuple of int
        Rows and columns of the matrix that are used; empty: all.
    work : int
        Multiply-adds per entry of the tensor's tail axis.
    """

    block: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    before: int
    inside: int
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    work: int


@dataclass(frozen=True)
class Plan:
    """All moves, and the tensor's axes at the end.

    Attributes
    ----------
    moves : tuple of Move
        In order of execution.
    wires, sizes : tuple of int
        Qubit and size of each axis at the end.
    """

    moves: tuple[Move, ...]
    wires: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def work(self) -> int:
        """Multiply-adds per entry of the tail axis."""
        return sum(move.work for move in self.moves)


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


@dataclass
class _Axes:
    """The tensor's axes while a plan is drawn up."""

    wires: list[int]
    sizes: list[int]
    moves: list[Move] = field(default_factory=list)

    def bring_together(self, pair: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Put the pair's axes side by side; the sizes before and the order, empty if they are."""
        at = [self.wires.index(wire) for wire in pair]
        if at[1] == at[0] + 1:
            return (), ()
        order = at + [i for i in range(len(self.wires)) if i not in at]
        before = tuple(self.sizes)
        self.wires = [self.wires[i] for i in order]
        self.sizes = [self.sizes[i] for i in order]
        return before, tuple(order)

    def product(self, start: int, stop: int | None = None) -> int:
        """Product of some axes' sizes."""
        result = 1
        for size in self.sizes[start:stop]:
            result *= size
        return result


def forward_plan(blocks: Sequence[FusedBlock], n_qubits: int) -> Plan:
    """Plan moving a state vector of n qubits through all blocks.

    Its tail axis are the rows. Work per row: 4 complex multiply-adds a block and amplitude.
    """
    axes = _Axes(list(range(n_qubits)), [2] * n_qubits)
    for index, block in enumerate(blocks):
        sizes, order = axes.bring_together(block.wires)
        start = axes.wires.index(block.wires[0])
        before = axes.product(0, start)
        axes.moves.append(Move(index, sizes, order, before, 4, (), (), 4 * 2**n_qubits))
    return Plan(tuple(axes.moves), tuple(axes.wires), tuple(axes.sizes))


def backward_plan(blocks: Sequence[FusedBlock], readouts: Sequence[int], real: bool) -> Plan:
    """Plan moving the read-outs' observables back through the blocks.

    An observable is a vector over Pauli words of the qubits in its light cone. A qubit enters
    the light cone with the identity, so only the matrix's columns of the identity are used;
    a block outside is skipped. Tail axis: the observables.

    Parameters
    ----------
    blocks : sequence of FusedBlock
        In order of time.
    readouts : sequence of int
        Qubits read out: the first axes.
    real : bool
        Whether encoded states are real product states. They have no Y component, so Y is
        dropped from an axis as soon as no earlier block acts on it: 3^n instead of 4^n words.

    Returns
    -------
    Plan
        The moves, from the last block to the first.
    """
    axes = _Axes(list(readouts), [PAULIS] * len(readouts))
    first_block = {
        wire: i for i, block in reversed(list(enumerate(blocks))) for wire in block.wires
    }
    for index in reversed(range(len(blocks))):
        a, b = blocks[index].wires
        known = [wire in axes.wires for wire in (a, b)]
        if not any(known):
            continue
        last = [real and first_block[wire] == index for wire in (a, b)]
        outputs = _pauli_words(*(WITHOUT_Y if end else range(PAULIS) for end in last))
        inputs = _pauli_words(*(range(PAULIS) if k else (0,) for k in known))
        move = _place(axes, (a, b), known)
        new = [len(WITHOUT_Y) if end else PAULIS for end in last]
        at = axes.wires.index(a)
        axes.sizes[at : at + 2] = new
        rest = axes.product(0) // (new[0] * new[1])
        axes.moves.append(
            replace(
                move,
                block=index,
                outputs=outputs if len(outputs) < PAULIS**2 else (),
                inputs=inputs if len(inputs) < PAULIS**2 else (),
                work=len(outputs) * len(inputs) * rest,
            )
        )
    return Plan(tuple(axes.moves), tuple(axes.wires), tuple(axes.sizes))


def _place(axes: _Axes, pair: tuple[int, int], known: list[bool]) -> Move:
    """Make both of the pair's axes neighbours; a new qubit's axis grows beside its partner."""
    sizes: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    if all(known):
        sizes, order = axes.bring_together(pair)
        at = axes.wires.index(pair[0])
    else:
        at = axes.wires.index(pair[0] if known[0] else pair[1])
    before = axes.product(0, at)
    if not all(known):
        axes.wires[at : at + 1] = list(pair)
        axes.sizes[at : at + 1] = [1, axes.sizes[at]]
    inside = axes.sizes[at] * axes.sizes[at + 1]
    return Move(0, sizes, order, before, inside, (), (), 0)


def _pauli_words(first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
    seconds = tuple(second)
    return tuple(PAULIS * i + j for i in first for j in seconds)
