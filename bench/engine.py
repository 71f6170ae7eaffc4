"""One gradient step of the exact engine beside other simulators and the machine's own floor.

``python -m bench.engine [--qubits 4 8 12 16] [--rows 32 256 2048] [--limit 20] [--device cpu]``
measures, in one run and one torch thread, the su4 QCNN with one read-out: forward pass,
cross-entropy and the gradient to all parameters. Columns, milliseconds a step with the ratio to
ours: ours, whatever engine the exact backend chooses, and the state-vector engine where that is
another one. Small circuits train in one compiled loop, so there ours is a step of `train_local`:
a call of `STEPS` steps by that number, Adam's update and the call's own cost included, which no
other column has. Then come PennyLane default.qubit with backprop; lightning.qubit with the adjoint
method; PennyLane on JAX and TensorCircuit-NG on JAX (vmap over the rows), one jitted function
each, its compile time in seconds apart; torchquantum; pyqtorch; qandle; and `bench.floor` of the
state-vector engine with ours over it.

Every simulator computes the same loss and gradient as ours, within `TOLERANCE`, before its time
counts: else its cell says by how much it differs, and the benchmark ends with status 1. A
simulator that needs an eighth of ``--limit`` seconds for a step is not tried with more rows;
nor one whose states or matrices of every gate would need more than `MAX_BYTES`, nor JAX after a
compilation of more than ``--compile-limit`` seconds. All but PennyLane's default.qubit are
optional: a column says so where one is missing. ``--only`` names the columns to measure.

``--device cuda`` puts ours, torchquantum, pyqtorch, qandle and the floor on the GPU, and waits
for it before a clock is read. PennyLane's and JAX's columns stay on the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch

from bench import simulators
from bench.floor import floor_seconds, seconds_of
from bench.simulators import NotInstalledError, Problem, Step, random_problem
from bench.tables import head
from bench.tables import row as table_row
from core import BackendError, DistillSettings, QuantumSettings, TrainSettings
from quantum import Classifier, TrainingData, build_classifier, train_local
from quantum.ansatz.qcnn import QCNN
from quantum.circuit import gates_of, trace_ansatz
from quantum.engines.exact.engine import ExactEngine
from quantum.engines.pauli import PauliEngine

Device = Literal["cpu", "cuda"]
OURS, STATES = "exact", "state vector"
STEPS = 50
DEFAULT, LIGHTNING = "pennylane:default.qubit", "pennylane:lightning.qubit"
JAX, TENSORCIRCUIT = "JAX jit", "TensorCircuit-NG"
TORCHQUANTUM, PYQTORCH, QANDLE = "torchquantum", "pyqtorch", "qandle"
COMPILED = (JAX, TENSORCIRCUIT)
OTHERS = (STATES, DEFAULT, LIGHTNING, *COMPILED, TORCHQUANTUM, PYQTORCH, QANDLE)
WHOLE_TAPE = (DEFAULT, *COMPILED, TORCHQUANTUM, PYQTORCH)  # keep the states after every gate
MAX_BYTES = 8 * 2**30
TOLERANCE = 1e-4
SLOW = "not tried"
Cell = tuple[float | str, float | None]
"""Milliseconds a step, or why there are none; seconds of compilation where there was one."""


@dataclass
class Bounds:
    """What is not tried any more: why, by simulator; and where to compute."""

    limit: float
    compile_limit: float
    device: Device = "cpu"
    skip: dict[str, str] = field(default_factory=dict)


def _settings(qubits: int, **options: Any) -> QuantumSettings:
    """Return settings of the circuit that all simulators run: one Z for two classes."""
    return QuantumSettings(qubits=qubits, readout="per-class", **options)


def our_step(problem: Problem, backend: str = OURS, device: Device = "cpu") -> Step:
    """Return one gradient step of a backend of ours on rows that are prepared beforehand."""
    ansatz = problem.ansatz
    if backend == STATES:
        classifier = Classifier(ansatz, ExactEngine(ansatz, device=device), 2)
    else:
        settings = _settings(ansatz.n_qubits, backend=backend, device=device)
        classifier = build_classifier(settings, 2)
    engine = classifier.engine  # PennyLane's lives on the CPU whatever the device
    prepared = classifier.prepare(problem.features)
    labels = torch.as_tensor(problem.labels, device=engine.device)
    theta = torch.tensor(problem.theta, dtype=engine.dtype, device=engine.device)
    theta.requires_grad_(True)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        loss = torch.nn.functional.cross_entropy(classifier.logits_tensor(theta, prepared), labels)
        return loss.detach(), torch.autograd.grad(loss, theta)[0]

    return step


def milliseconds(step: Callable[[], object], limit: float, device: Device = "cpu") -> float:
    """Return the median time of a step after one warm-up, within about `limit` seconds."""
    once = seconds_of(step, device)
    repeats = max(1, min(30, int(limit / max(once, 1e-4))))
    return 1000 * statistics.median(seconds_of(step, device) for _ in range(repeats))


def our_milliseconds(problem: Problem, step: Step, limit: float, device: Device) -> float:
    """Return the time of our step: in training where a compiled loop does it, else by itself."""
    settings = _settings(problem.ansatz.n_qubits, device=device)
    classifier = build_classifier(settings, 2)
    if not isinstance(classifier.engine, PauliEngine):
        return milliseconds(step, limit, device)
    start = classifier.unflatten(problem.theta)
    data = TrainingData(problem.features, problem.labels)
    train, distill = TrainSettings(optimizer="adam"), DistillSettings(weight=0)

    def training() -> object:
        return train_local(classifier, start, data, train, distill, STEPS)

    return milliseconds(training, limit) / STEPS


def build(name: str, problem: Problem, device: Device) -> tuple[Step, float | None]:
    """Return a simulator's gradient step, and the seconds that it compiled if it does.

    Raises
    ------
    NotInstalledError, BackendError
        If it is not installed.
    """
    if name == JAX:
        return simulators.jax_step(problem)
    if name == TENSORCIRCUIT:
        return simulators.tensorcircuit_step(problem)
    if name == TORCHQUANTUM:
        return simulators.torchquantum_step(problem, device), None
    if name == PYQTORCH:
        return simulators.pyqtorch_step(problem, device), None
    if name == QANDLE:
        return simulators.qandle_step(problem, device), None
    return our_step(problem, name, device), None


def deviation(step: Step, reference: Step) -> float:
    """Return the largest difference between two steps' losses and gradients."""
    pairs = zip(step(), reference(), strict=True)
    return max(float(np.abs(_array(a) - _array(b)).max()) for a, b in pairs)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)


def too_big(name: str, problem: Problem) -> bool:
    """Whether what a simulator keeps needs more than `MAX_BYTES`."""
    qubits: int = problem.ansatz.n_qubits
    gates = list(gates_of(problem.ansatz.blocks))
    if name == QANDLE:  # two matrices a gate, and their sum for the gradient
        gates = list(simulators.elementary(gates))
        return (3 * 8 << 2 * qubits) * len(gates) > MAX_BYTES
    if name not in WHOLE_TAPE:
        return False
    return (16 << qubits) * len(problem.features) * len(gates) > MAX_BYTES


def measure(name: str, problem: Problem, reference: Step, bounds: Bounds) -> Cell:
    """Time one simulator, once its loss and gradient are those of the reference."""
    if name in bounds.skip:
        return bounds.skip[name], None
    if too_big(name, problem):
        return "too big", None
    try:
        step, seconds = build(name, problem, bounds.device)
    except (NotInstalledError, BackendError):
        bounds.skip[name] = "not installed"
        return "not installed", None
    if seconds is not None and seconds > bounds.compile_limit:  # this size is still measured
        bounds.skip[name] = "compiles too long"
    if not (difference := deviation(step, reference)) <= TOLERANCE:
        return f"differs by {difference:.1g}", seconds
    took = milliseconds(step, bounds.limit, bounds.device)
    if took > 1000 * bounds.limit / 8:  # 8 times the rows would be too long
        bounds.skip[name] = SLOW
    return took, seconds


def header(names: tuple[str, ...]) -> str:
    """Return the table's head."""
    columns = ["qubits", "rows", "ours, ms"]
    for name in names:
        columns.append(f"{name.removeprefix('pennylane:')}, ms")
        columns += ["its compilation, s"] if name in COMPILED else []
    return head((*columns, "floor, ms", "ours / floor"))


def row(qubits: int, rows: int, ours: float, others: Mapping[str, Cell], floor: float) -> str:
    """Return the times of one size as a Markdown row, the others' with their ratio to ours."""
    cells = [str(qubits), str(rows), f"{ours:.3g}"]
    for name, (took, seconds) in others.items():
        cells.append(took if isinstance(took, str) else f"{took:.3g} ({took / ours:.1f}x)")
        if name in COMPILED:
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
    parser.add_argument("--only", nargs="*", choices=OTHERS, default=OTHERS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = tuple(name for name in OTHERS if name in given.only)
    print(header(names))
    device: Device = given.device
    bounds, wrong = Bounds(given.limit, given.compile_limit, device), False
    for qubits in given.qubits:
        bounds.skip = {name: why for name, why in bounds.skip.items() if why != SLOW}
        ansatz = trace_ansatz(QCNN(), qubits)
        for rows in given.rows:
            problem = random_problem(ansatz, rows)
            step = our_step(problem, OURS, device)
            ours = our_milliseconds(problem, step, given.limit, device)
            others = {name: measure(name, problem, step, bounds) for name in names}
            wrong |= any(str(took).startswith("differs") for took, _ in others.values())
            schedule = ExactEngine(ansatz, device=device).schedule_for(rows)
            floor = 1000 * floor_seconds(schedule, rows, 1, device)
            print(row(qubits, rows, ours, others, floor), flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
