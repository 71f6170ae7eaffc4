"""One gradient step of the exact engine beside other simulators and the machine's own floor.

``python -m bench.engine [--qubits 4 8 12 16] [--rows 32 256 2048] [--limit 20] [--device cpu]``
measures, in one run and one torch thread, the su4 QCNN with one read-out: forward pass,
cross-entropy and the gradient to all parameters. Columns, milliseconds a step with the ratio to
ours: ours; PennyLane default.qubit with backprop; lightning.qubit with the adjoint method;
PennyLane on JAX, one jitted function, its compile time in seconds apart; torchquantum; and
`bench.floor` with ours over it.

A simulator that needs an eighth of ``--limit`` seconds for a step is not tried with more rows;
nor one whose states after every gate would need more than `MAX_BYTES`, nor JAX after a
compilation of more than ``--compile-limit`` seconds. JAX, lightning and torchquantum are
optional: a column says so where one is missing.

``--device cuda`` puts ours, torchquantum and the floor on the GPU, and waits for it before a
clock is read. PennyLane's columns, with default.qubit, lightning and JAX, stay on the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch

from bench.floor import floor_seconds, seconds_of
from bench.simulators import NotInstalledError, jax_step, torchquantum_step
from bench.tables import head
from bench.tables import row as table_row
from core import BackendError, QuantumSettings
from quantum import build_classifier
from quantum.ansatz.qcnn import QCNN
from quantum.circuit import gates_of, trace_ansatz
from quantum.engines.exact.engine import ExactEngine

Step = Callable[[], None]
Device = Literal["cpu", "cuda"]
OURS = "exact"
JAX, TORCHQUANTUM = "JAX jit", "torchquantum"
OTHERS = ("pennylane:default.qubit", "pennylane:lightning.qubit", JAX, TORCHQUANTUM)
WHOLE_TAPE = ("pennylane:default.qubit", JAX, TORCHQUANTUM)  # keep the states after every gate
MAX_BYTES = 8 * 2**30
SLOW = "not tried"
HEADER = head(
    (
        *("qubits", "rows", "ours, ms", "default.qubit, ms", "lightning.qubit, ms", "JAX jit, ms"),
        *("its compilation, s", "torchquantum, ms", "floor, ms", "ours / floor"),
    )
)


@dataclass
class Bounds:
    """What is not tried any more: why, by simulator; and where to compute."""

    limit: float
    compile_limit: float
    device: Device = "cpu"
    skip: dict[str, str] = field(default_factory=dict)


def inputs(qubits: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random features, shape (rows, qubits), float32, and labels, shape (rows,)."""
    rng = np.random.default_rng(0)
    features = rng.uniform(-np.pi / 2, np.pi / 2, (rows, qubits)).astype(np.float32)
    return features, rng.integers(0, 2, rows)


def gradient_step(backend: str, qubits: int, rows: int, device: Device = "cpu") -> Step:
    """Return a function that does one gradient step on a data set prepared beforehand."""
    settings = QuantumSettings(qubits=qubits, backend=backend, device=device)
    classifier = build_classifier(settings, 2)
    engine = classifier.engine  # PennyLane's lives on the CPU whatever the device
    features, classes = inputs(qubits, rows)
    prepared, labels = classifier.prepare(features), torch.as_tensor(classes, device=engine.device)
    flat = classifier.flatten(classifier.initial(0))
    theta = torch.tensor(flat, dtype=engine.dtype, device=engine.device, requires_grad=True)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(classifier.logits_tensor(theta, prepared), labels)
        torch.autograd.grad(loss, theta)

    return step


def milliseconds(step: Step, limit: float, device: Device = "cpu") -> float:
    """Return the median time of a step after one warm-up, within about `limit` seconds."""
    once = seconds_of(step, device)
    repeats = max(1, min(30, int(limit / max(once, 1e-4))))
    return 1000 * statistics.median(seconds_of(step, device) for _ in range(repeats))


def measure(name: str, qubits: int, rows: int, bounds: Bounds) -> tuple[float | str, float | None]:
    """Time one simulator.

    Returns
    -------
    float or str
        Milliseconds a step, or why there are none.
    float or None
        Seconds of compilation, JAX only.
    """
    if name in bounds.skip:
        return bounds.skip[name], None
    ansatz = trace_ansatz(QCNN(), qubits)
    gates = len(list(gates_of(ansatz.blocks)))
    if name in WHOLE_TAPE and 16 * 2**qubits * rows * gates > MAX_BYTES:
        return "too big", None
    seconds = None
    try:
        if name == JAX:
            step, seconds = jax_step(ansatz, *inputs(qubits, rows))
            if seconds > bounds.compile_limit:  # this size is still measured
                bounds.skip[name] = "compiles too long"
        elif name == TORCHQUANTUM:
            step = torchquantum_step(ansatz, *inputs(qubits, rows), bounds.device)
        else:
            step = gradient_step(name, qubits, rows, bounds.device)
    except (NotInstalledError, BackendError):
        bounds.skip[name] = "not installed"
        return "not installed", None
    took = milliseconds(step, bounds.limit, bounds.device)
    if took > 1000 * bounds.limit / 8:  # 8 times the rows would be too long
        bounds.skip[name] = SLOW
    return took, seconds


def row(
    qubits: int,
    rows: int,
    ours: float,
    others: dict[str, tuple[float | str, float | None]],
    floor: float,
) -> str:
    """Return the times of one size as a Markdown row, the others' with their ratio to ours."""
    cells = [str(qubits), str(rows), f"{ours:.1f}"]
    for name in OTHERS:
        took, seconds = others[name]
        cells.append(took if isinstance(took, str) else f"{took:.3g} ({took / ours:.1f}x)")
        if name == JAX:
            cells.append("-" if seconds is None else f"{seconds:.1f}")
    cells += [f"{floor:.2f}", f"{ours / floor:.1f}"]
    return table_row(cells)


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 8, 12, 16])
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 256, 2048])
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--compile-limit", type=float, default=120.0)
    parser.add_argument("--device", choices=get_args(Device), default="cpu")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(HEADER)
    device: Device = given.device
    bounds = Bounds(given.limit, given.compile_limit, device)
    for qubits in given.qubits:
        bounds.skip = {name: why for name, why in bounds.skip.items() if why != SLOW}
        engine = ExactEngine(trace_ansatz(QCNN(), qubits), device=device)
        for rows in given.rows:
            ours = milliseconds(gradient_step(OURS, qubits, rows, device), given.limit, device)
            others = {name: measure(name, qubits, rows, bounds) for name in OTHERS}
            floor = 1000 * floor_seconds(engine.schedule_for(rows), rows, 1, device)
            print(row(qubits, rows, ours, others, floor), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
