"""One gradient step of the exact engine beside PennyLane's simulators.

``python -m bench.engine [--qubits 4 8 12] [--rows 32 256 2048] [--limit 20]`` measures, in one
run and one torch thread, the su4 QCNN with one read-out: forward pass, cross-entropy and the
gradient to all parameters. Columns: ours; PennyLane default.qubit with backprop; lightning.qubit
with the adjoint method. A simulator that needs an eighth of ``--limit`` seconds for a step is not
tried with more rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from federation import QuantumSettings
from quantum import build_classifier

Step = Callable[[], None]
BACKENDS = ("exact", "pennylane:default.qubit", "pennylane:lightning.qubit")


def gradient_step(backend: str, qubits: int, rows: int) -> Step:
    """Return a function that does one gradient step on a data set prepared beforehand."""
    settings = QuantumSettings(qubits=qubits, backend=backend)
    classifier = build_classifier(settings, 2)
    rng = np.random.default_rng(0)
    features = rng.uniform(-np.pi / 2, np.pi / 2, (rows, qubits)).astype(np.float32)
    prepared = classifier.prepare(features)
    labels = torch.as_tensor(rng.integers(0, 2, rows))
    flat = classifier.spec.flatten(classifier.initial(0))
    theta = torch.tensor(flat, dtype=classifier.engine.dtype, requires_grad=True)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(classifier.logits_tensor(theta, prepared), labels)
        torch.autograd.grad(loss, theta)

    return step


def milliseconds(step: Step, limit: float) -> float:
    """Return the median time of a step after one warm-up, within about `limit` seconds."""
    began = time.perf_counter()
    step()
    once = time.perf_counter() - began
    times = []
    for _ in range(max(1, min(30, int(limit / max(once, 1e-4))))):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def row(qubits: int, rows: int, took: dict[str, float]) -> str:
    """Return the times of one size as a Markdown row, the others' with their ratio to ours."""
    ours = took[BACKENDS[0]]
    others = [
        f"{took[name]:.0f} ({took[name] / ours:.0f}x)" if name in took else "not tried"
        for name in BACKENDS[1:]
    ]
    return "| " + " | ".join([str(qubits), str(rows), f"{ours:.1f}", *others]) + " |"


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 8, 12])
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 256, 2048])
    parser.add_argument("--limit", type=float, default=20.0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| qubits | rows | ours, ms | default.qubit, ms (ratio) | lightning.qubit, ms (ratio) |")
    print("|---|---|---|---|---|")
    for qubits in given.qubits:
        slow: set[str] = set()
        for rows in given.rows:
            took: dict[str, float] = {}
            for backend in BACKENDS:
                if backend == BACKENDS[0] or backend not in slow:
                    took[backend] = milliseconds(gradient_step(backend, qubits, rows), given.limit)
                    if took[backend] > 1000 * given.limit / 8:  # 8 times the rows would be too long
                        slow.add(backend)
            print(row(qubits, rows, took), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
