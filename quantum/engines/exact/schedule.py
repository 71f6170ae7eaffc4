"""Planning one gradient step: which blocks meet which tensor, in which order, at what cost.

Pure Python, done once per ansatz. A `Schedule` cuts the circuit into three parts:

* cells: angle encoding is a product state, so blocks that lie inside a few neighbouring
  qubits become one matrix that acts on the short vectors of those qubits alone;
* middle: what remains acts on whole states, in groups of up to `GROUP` qubits;
* late: after the last poolings only m qubits matter, so everything behind a cut becomes one
  matrix, of which the rows meet the states that are read out, half of them for one Z. The cut may
  lie at the very start, m = n: then real states meet one observable of 4^n entries a read-out
  (Heisenberg picture), a row costs one quadratic form, and no state moves at all.

Where the features are uploaded again, cells end at the first of these uploads and the cut lies
behind the last; the middle does them all, each a phase an amplitude.

`step_cost` counts, and the engine takes the cheapest of `schedules`. Blocks outside the light
cone of the read-outs are in none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from quantum.engines.exact.fusion import FusedBlock

GROUP = 4  # qubits of a group: 16x16 matrices still run at about the speed of copying
CELL_SIZES = (4, 6, 8)  # qubits of a cell; even, so that no pair of the first ring is cut
MAX_DENSE = 10  # most qubits of a cell or of an observable
PASS = 90.0  # moving one amplitude through a pass, in multiply-adds (measured: 1.2 ns, 75 / ns)
LAUNCH = 1.0e6  # Python and kernel launches of a pass, in multiply-adds (about 15 microseconds)
CHUNK = 2**20  # amplitudes of one chunk of rows, 8 MB of complex64


@dataclass(frozen=True)
class Group:
    """Blocks applied together, and the qubits of their joint matrix.

    Attributes
    ----------
    wires : tuple of int
        Qubits, first most significant.
    blocks : tuple of int
        Indices of the blocks, in order of time.
    """

    wires: tuple[int, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Section:
    """A run of groups on some qubits.

    Attributes
    ----------
    wires : tuple of int
        Order of the axes before the first group.
    groups : tuple of Group
        In order of time.
    uploads : tuple of int
        For each upload of the features, the number of groups before it.
    """

    wires: tuple[int, ...]
    groups: tuple[Group, ...]
    uploads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """The three parts of a step.

    Attributes
    ----------
    cells : tuple of Section
        Disjoint, together all qubits.
    middle : Section
        On all qubits.
    late : Section or None
        Behind the cut, turned into one matrix; None: read out the diagonal of Z.
    real : bool
        Whether encoded states are real product states.
    """

    cells: tuple[Section, ...]
    middle: Section
    late: Section | None
    real: bool

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups: cells', then the middle's, then the late ones'."""
        late = () if self.late is None else self.late.groups
        return (*(g for cell in self.cells for g in cell.groups), *self.middle.groups, *late)

    @property
    def parts(self) -> int:
        """1 while the states stay real, else 2: their real and imaginary parts."""
        return 1 if self.real and self.heisenberg else 2

    @property
    def heisenberg(self) -> bool:
        """Whether the cut lies before the first block."""
        return self.late is not None and not any(
            section.groups for section in (*self.cells, self.middle)
        )


@dataclass(frozen=True)
class Partition:
    """The qubits of each cell, and whether cells absorb the blocks inside them."""

    cells: tuple[tuple[int, ...], ...]
    absorb: bool


def light_cone(blocks: Sequence[FusedBlock], readouts: Iterable[int]) -> tuple[int, ...]:
    """Find the blocks that the read-outs depend on, by index, in order of time."""
    seen = set(readouts)
    found = []
    for index in reversed(range(len(blocks))):
        if seen.intersection(blocks[index].wires):
            seen.update(blocks[index].wires)
            found.append(index)
    return tuple(reversed(found))


def schedules(
    blocks: Sequence[FusedBlock],
    n_qubits: int,
    readouts: Sequence[int],
    real: bool,
    uploads: Sequence[int] = (),
) -> tuple[Schedule, ...]:
    """List the schedules worth counting.

    Parameters
    ----------
    blocks : sequence of FusedBlock
        In order of time.
    n_qubits : int
        Number of qubits n.
    readouts : sequence of int
        Qubits read out.
    real : bool
        Whether encoded states are real product states.
    uploads : sequence of int
        For each later upload of the features, the number of blocks before it.

    Returns
    -------
    tuple of Schedule
        At least one.
    """
    cone = light_cone(blocks, readouts)
    *early, last = [
        [index for index in cone if start <= index < end]
        for start, end in pairwise([0, *uploads, len(blocks)])
    ]
    found = []
    for time, wires in late_cuts(blocks, last, readouts, n_qubits):
        late = None if wires is None else section(blocks, last[time:], wires)
        stages = [*early, last[:time]]
        found += [_cut(blocks, stages, cells, late, real) for cells in partitions(n_qubits, real)]
    # Several cells pay only where each has something to do.
    useful = [s for s in found if len(s.cells) == 1 or all(cell.groups for cell in s.cells)]
    whole = Partition((tuple(range(n_qubits)),), absorb=False)
    return tuple(dict.fromkeys(useful or [_cut(blocks, [*early, last], whole, None, real)]))


def _cut(
    blocks: Sequence[FusedBlock],
    stages: Sequence[Sequence[int]],
    partition: Partition,
    late: Section | None,
    real: bool,
) -> Schedule:
    """Let the cells take what lies inside them, and leave the middle the rest.

    The features are uploaded between ``stages``; the cells take of the first stage only.
    """
    left = list(stages[0])
    cells = []
    for wires in partition.cells:
        taken = take_inside(blocks, left, wires) if partition.absorb else []
        left = [index for index in left if index not in set(taken)]
        cells.append(section(blocks, taken, wires))
    everywhere = tuple(wire for wires in partition.cells for wire in wires)
    middle = _by_cells(_in_stages(blocks, [left, *stages[1:]], everywhere), partition)
    if not middle.groups and late is not None:
        middle = Section(_order(late.wires, everywhere), (), middle.uploads)
    for place, cell in enumerate(cells):  # a cell without groups is encoded as the middle wants it
        if not cell.groups:
            cells[place] = Section(tuple(w for w in middle.wires if w in cell.wires), ())
    return Schedule(tuple(cells), middle, late, real)


def _in_stages(
    blocks: Sequence[FusedBlock], stages: Sequence[Sequence[int]], wires: Sequence[int]
) -> Section:
    """Group each stage's blocks, with an upload of the features between two stages."""
    first, *others = (section(blocks, stage, wires) for stage in stages)
    groups, uploads = first.groups, []
    for part in others:
        uploads.append(len(groups))
        groups += part.groups
    order = first.wires if first.groups or not others else others[0].wires
    return Section(order, groups, tuple(uploads))


def _by_cells(middle: Section, partition: Partition) -> Section:
    """Order axes so that cells' qubits lie in long runs, which makes their product cheap.

    The groups that can act without bringing axes together come first, all else cell by cell.
    """
    cell = {wire: place for place, wires in enumerate(partition.cells) for wire in wires}
    groups = [Group(tuple(sorted(g.wires, key=cell.__getitem__)), g.blocks) for g in middle.groups]
    first: list[int] = []
    for group in groups:
        if set(first).intersection(group.wires):
            break
        first += group.wires
    rest = sorted((w for w in middle.wires if w not in first), key=cell.__getitem__)
    return Section((*first, *rest), tuple(groups), middle.uploads)


def take_inside(
    blocks: Sequence[FusedBlock], indices: Sequence[int], wires: Iterable[int]
) -> list[int]:
    """Blocks inside ``wires`` that no earlier block outside holds back, in order of time."""
    inside, blocked = set(wires), set[int]()
    taken = []
    for index in indices:
        pair = set(blocks[index].wires)
        if pair <= inside and not pair & blocked:
            taken.append(index)
        else:
            blocked |= pair
    return taken


def section(blocks: Sequence[FusedBlock], indices: Sequence[int], wires: Sequence[int]) -> Section:
    """Group blocks greedily.

    The first block that can act opens a group; of those that can act next, the one that adds
    the fewest qubits joins, while all fit into `GROUP` qubits.
    """
    size = min(GROUP, len(wires))
    queues = {w: deque(i for i in indices if w in blocks[i].wires) for w in wires}
    groups = []
    while any(queues.values()):
        chosen: list[int] = []
        members: list[int] = []
        while (index := _next_block(blocks, queues, chosen, size)) is not None:
            members.append(index)
            for wire in blocks[index].wires:
                queues[wire].popleft()
                if wire not in chosen:
                    chosen.append(wire)
        spare = [wire for wire in wires if wire not in chosen]
        groups.append(Group((*chosen, *spare[: size - len(chosen)]), tuple(members)))
    used = tuple(dict.fromkeys(wire for group in groups for wire in group.wires))
    return Section(_order(used, wires), tuple(groups))


def _next_block(
    blocks: Sequence[FusedBlock], queues: dict[int, deque[int]], chosen: list[int], size: int
) -> int | None:
    heads = {queue[0] for queue in queues.values() if queue}
    ready = [i for i in heads if all(queues[wire][0] == i for wire in blocks[i].wires)]
    fitting = [i for i in ready if len({*chosen, *blocks[i].wires}) <= size]
    return min(fitting, key=lambda i: (len({*chosen, *blocks[i].wires}), i), default=None)


def _order(first: Iterable[int], wires: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys([*first, *wires]))


def late_cuts(
    blocks: Sequence[FusedBlock], cone: Sequence[int], readouts: Sequence[int], n_qubits: int
) -> list[tuple[int, tuple[int, ...] | None]]:
    """Positions in ``cone`` to cut at, each with the qubits that matter behind it.

    The first is no cut at all (None). For each number of qubits only the earliest cut.
    """
    least = min(GROUP, n_qubits)
    seen = list(readouts)
    best: dict[int, tuple[int, tuple[int, ...]]] = {}
    for time in reversed(range(len(cone))):
        seen += [wire for wire in blocks[cone[time]].wires if wire not in seen]
        best[max(len(seen), least)] = (time, tuple(seen))
    if len(seen) < least or not best:
        best[least] = (0, tuple(seen))
    cuts: list[tuple[int, tuple[int, ...] | None]] = [(len(cone), None)]
    for size, (time, wires) in sorted(best.items()):
        if size <= MAX_DENSE:
            spare = [wire for wire in range(n_qubits) if wire not in wires]
            cuts.append((time, wires + tuple(spare[: size - len(wires)])))
    return cuts


def partitions(n_qubits: int, real: bool) -> list[Partition]:
    """Ways to cut the qubits into cells; states that are no products stay whole."""
    whole = (tuple(range(n_qubits)),)
    found = []
    if n_qubits <= MAX_DENSE or not real:
        found.append(Partition(whole, absorb=False))
    if n_qubits <= MAX_DENSE:
        found.append(Partition(whole, absorb=True))
    sizes = [size for size in CELL_SIZES if real and size < n_qubits]
    for size in sizes:
        cells = _cells(n_qubits, size)
        if len(cells[-1]) <= MAX_DENSE:
            found.append(Partition(cells, absorb=True))
    return found


def _cells(n_qubits: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Cut qubits into neighbours; fewer than `GROUP` at the end join those before them."""
    starts = range(0, n_qubits - GROUP + 1, size)
    return tuple(tuple(range(a, b)) for a, b in pairwise([*starts, n_qubits]))


def step_cost(schedule: Schedule, rows: int, readouts: int) -> float:
    """Count a gradient step, in real multiply-adds.

    A third of it in fact, the forward pass: the gradient costs twice as much whatever the
    schedule; nor is what uploads of the features cost, for the same reason. A group of k qubits
    takes 4 2^k multiply-adds an amplitude and moving the amplitude `PASS`; launches count once
    for each chunk of rows.

    Parameters
    ----------
    schedule : Schedule
        What to count.
    rows : int
        Number of rows.
    readouts : int
        Number of read-outs R.

    Returns
    -------
    float
        The cost.
    """
    amplitudes = rows * 2.0 ** len(schedule.middle.wires)
    work, passes = _row_work(schedule, readouts)
    total = amplitudes * work + LAUNCH * passes * ceil(amplitudes / CHUNK)
    total += sum(_dense_cost(part) for part in schedule.cells)
    if schedule.late is not None:
        observables = readouts * 8.0 ** len(schedule.late.wires) if schedule.parts == 1 else 0.0
        total += _dense_cost(schedule.late) + observables + 2 * LAUNCH
    return total


def _row_work(schedule: Schedule, readouts: int) -> tuple[float, int]:
    """Multiply-adds per amplitude of all rows, and the number of passes."""
    n = len(schedule.middle.wires)
    passes = len(schedule.middle.groups)
    work = passes * (4.0 * 2 ** min(GROUP, n) + PASS)
    inputs = 1 if schedule.real else 2
    for cell in schedule.cells:
        if cell.groups:
            c = len(cell.wires)
            work += (inputs * 2.0 * 2**c + PASS) * 2.0 ** (c - n)
            passes += 1
    if len(schedule.cells) > 1:  # the outer product
        work, passes = work + 2 * PASS, passes + 2
    if schedule.late is None:
        return work + PASS / 2, passes + 1
    observable = 2.0 ** len(schedule.late.wires)
    if schedule.parts == 1:
        return work + readouts * (observable + PASS), passes + readouts
    read = 1 - 2.0**-readouts  # of the rows of the late section's matrix
    share = 2 / 3 if schedule.heisenberg else 1.0  # there the states need no gradient
    return work + share * read * 4 * observable + PASS, passes + 1


def _dense_cost(part: Section) -> float:
    """Multiply-adds of turning a section into one matrix: its groups act on 2^m columns."""
    m = len(part.wires)
    each = 4.0**m * (4.0 * 2 ** min(GROUP, m) + PASS) + LAUNCH
    return each * len(part.groups) if len(part.groups) > 1 else 0.0
