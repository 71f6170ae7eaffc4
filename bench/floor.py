"""The least time that a gradient step of a schedule could take on this machine.

For the schedule that the engine chose, the best that we know of, the larger of

* operations: its matrix products on rows (a group: forward, adjoint, matrices' gradient; a cell
  and an observable: forward and gradient), each as fast as this machine does that very shape
  with both operands at hand;
* bytes: the states that have to be written and read once for each of these passes, over the
  bandwidth of a copy of as many bytes as one chunk of states has.

It assumes that everything else is free: building the matrices from the angles, bringing axes
together, read-outs, launches, and running chunks again to save memory; and that operations and
bytes overlap perfectly. At few qubits launches are nearly all of a step and the floor says little.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch

from quantum.engines.exact.schedule import CHUNK, GROUP, Schedule

Shape = tuple[int, int, int]


def floor_seconds(schedule: Schedule, rows: int, readouts: int, device: str = "cpu") -> float:
    """Return the larger of the two bounds, in seconds, float32, torch's current threads."""
    amplitudes = rows << len(schedule.middle.wires)
    counted = products(schedule, rows, readouts)
    operations = sum(count * product_seconds(shape, device) for shape, count in counted.items())
    chunk_bytes = 8 * min(amplitudes, CHUNK)
    moving = copy_seconds(chunk_bytes, device) / chunk_bytes
    return max(operations, state_bytes(schedule, rows) * moving)


def products(schedule: Schedule, rows: int, readouts: int) -> Counter[Shape]:
    """Count the matrix products (m, k) @ (k, n) on rows in one gradient step.

    Long products are counted as many of at most `CHUNK` amplitudes.
    """
    found: Counter[Shape] = Counter()
    n = len(schedule.middle.wires)
    inputs = 1 if schedule.real else 2
    for cell in schedule.cells:
        if cell.groups:
            size = 2 ** len(cell.wires)
            found[2 * size, inputs * size, rows] += 1
            found[2 * size, rows, inputs * size] += 1
    chunks = max(1, rows * 2**n // CHUNK)
    amplitudes = rows * 2**n // chunks
    size = 2 ** min(GROUP, n)
    groups = chunks * len(schedule.middle.groups)
    found[2 * size, 2 * size, amplitudes // size] += 2 * groups
    found[2 * size, amplitudes // size, 2 * size] += groups
    if schedule.late is not None:
        size = 2 ** len(schedule.late.wires)
        columns = amplitudes // size
        if schedule.parts == 1:  # an observable a read-out
            found[size, size, columns] += chunks * readouts
            found[size, columns, size] += chunks * readouts
            return +found
        read = 2 * size - (2 * size >> readouts)  # of the matrix's rows
        found[read, 2 * size, columns] += chunks
        found[read, columns, 2 * size] += chunks
        if not schedule.heisenberg:
            found[2 * size, read, columns] += chunks
    return +found


def state_bytes(schedule: Schedule, rows: int) -> int:
    """Bytes of states to be moved in one gradient step, float32.

    Observables before the first block: the encoded rows are read twice. Else, in states: write
    the product, read and write for each group, read to read out; on the way back write the
    gradient, read it, the input and write it for each group, and read it and the state once more
    at the ends.
    """
    state = schedule.parts * 4 * (rows << len(schedule.middle.wires))
    if schedule.heisenberg:
        return 2 * state
    return (5 + 5 * len(schedule.middle.groups)) * state


def product_seconds(shape: Shape, device: str = "cpu") -> float:
    """Measure one matrix product of that shape."""
    m, k, n = shape
    left, result = torch.rand(m, k, device=device), torch.empty(m, n, device=device)
    right = torch.rand((n, k) if k > n else (k, n), device=device)
    right = right.T if k > n else right  # a gradient's factor is transposed
    return fastest(lambda: torch.mm(left, right, out=result), device)


def copy_seconds(size: int, device: str = "cpu") -> float:
    """Measure moving ``size`` bytes: half of them read, half of them written."""
    source = torch.rand(max(1, size // 8), device=device)
    target = torch.empty_like(source)
    return fastest(lambda: target.copy_(source), device)


def fastest(action: Callable[[], object], device: str = "cpu", seconds: float = 0.05) -> float:
    """Return the least time of an action within about that many seconds, after a warm-up."""
    action()
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        best = min(best, seconds_of(action, device))
    return best


def seconds_of(action: Callable[[], object], device: str = "cpu") -> float:
    """Return the time of an action from an idle device to an idle device."""
    wait_for(device)
    began = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
