"""Local training of many clients at once, beside the loop and beside JAX.

``python -m bench.clients [--clients 1000 --steps 20 --rows 32 --qubits 4] [--device cpu]``:
the su4 QCNN, Adam, cross-entropy and KL distillation, float32, one thread. One line each for

* `quantum.train_local` in a loop over the first ``--subset`` clients, scaled to all of them;
* `quantum.train_together`;
* `jax.vmap` and `jit` of the whole training by PennyLane's default.qubit, by TensorCircuit-NG,
  and by hand, ``--together`` clients a launch, as many as suit a processor's cache: a thousand at
  once took longer (JAX and TensorCircuit-NG are optional).

Apart from each time, compilation or the first call: of `train_together` its first call with two
clients, of JAX tracing and compiling. A time counts only where the clients' last losses are those
of the loop (or where the loop stopped, of `train_together`) within 1e-4 in the mean; else the line
says by how much they differ, and the benchmark ends with status 1. The last columns are the mean
and the largest difference: in single precision a few of a thousand clients leave the others' path.

``--device cuda`` puts all of them on the GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.jax_training import Fleet, by_hand, random_fleet, train
from bench.simulators import NotInstalledError, pennylane_z, tensorcircuit_z
from bench.tables import head
from bench.tables import row as table_row
from core import DistillSettings, QuantumSettings, TrainSettings
from quantum import TrainingData, TrainTask, build_classifier, train_local, train_together

LOOP, TOGETHER = "`train_local`, a loop", "`train_together`"
JAX = {
    "PennyLane on JAX, vmap + jit": pennylane_z,
    "TensorCircuit-NG, vmap + jit": tensorcircuit_z,
    "JAX by hand, vmap + jit": by_hand,
}
TOLERANCE = 1e-4
DIFFER = ("losses differ, mean", "largest")


@dataclass(frozen=True)
class Outcome:
    """One contender's training.

    Attributes
    ----------
    losses : numpy.ndarray
        Loss before the last update, of the clients that it trained: the first ones.
    seconds : float
        Seconds of training, scaled to all clients.
    before : float or None
        Seconds of compilation or of a first call.
    """

    losses: np.ndarray
    seconds: float
    before: float | None = None


def tasks(fleet: Fleet, qubits: int, steps: int, device: str) -> list[TrainTask]:
    """Return what every client shall do."""
    settings = QuantumSettings(qubits=qubits, device=device)  # type: ignore[arg-type]
    classifier = build_classifier(settings, 2)
    rows = zip(fleet.features, fleet.labels, fleet.soft_labels, strict=True)
    data = [TrainingData(features, labels, soft) for features, labels, soft in rows]
    start, common = classifier.initial(0), (TrainSettings(), DistillSettings().in_round(1), steps)
    return [TrainTask(classifier, start, each, *common) for each in data]


def loop(given: Sequence[TrainTask], subset: int) -> Outcome:
    """Train the first clients one by one."""
    chosen = given[:subset]
    run_one(chosen[0])
    began = time.perf_counter()
    losses = [run_one(task) for task in chosen]
    seconds = time.perf_counter() - began
    return Outcome(np.array(losses), seconds * len(given) / len(chosen))


def run_one(task: TrainTask) -> float:
    """Train one client; return its last loss."""
    settings = (task.train, task.distill, task.steps)
    return train_local(task.classifier, task.parameters, task.data, *settings).losses[-1]


def together(given: Sequence[TrainTask]) -> Outcome:
    """Train all clients in one call."""
    began = time.perf_counter()
    train_together(given[:2])
    ready = time.perf_counter()
    results = train_together(given)
    seconds = time.perf_counter() - ready
    losses = []
    for result in results:
        if isinstance(result, Exception):
            raise result
        losses.append(result.losses[-1])
    return Outcome(np.array(losses), seconds, ready - began)


def in_jax(
    build: Callable[[Any], Any], given: Sequence[TrainTask], fleet: Fleet, together: int
) -> Outcome:
    """Train all clients in JAX."""
    task = given[0]
    theta = task.classifier.flatten(task.parameters).astype(np.float32)
    expectation = build(task.classifier.ansatz)
    settings = (task.train, task.distill, task.steps, together)
    return Outcome(*train(fleet, expectation, theta, *settings))


def line(name: str, outcome: Outcome, reference: np.ndarray, seconds: float) -> tuple[str, bool]:
    """Return a row of the table, and whether the losses are those of the reference."""
    count = min(len(reference), len(outcome.losses))
    differences = np.abs(outcome.losses[:count] - reference[:count])
    difference = float(differences.mean())
    before = "-" if outcome.before is None else f"{outcome.before:.1f}"
    agrees = difference <= TOLERANCE
    ratio = f"{outcome.seconds / seconds:.2f}x" if agrees else f"differs by {difference:.1g}"
    cells = [name, f"{outcome.seconds:.2f}", before, ratio, f"{difference:.0e}"]
    cells.append(f"{differences.max():.0e}")
    return table_row(cells), agrees


def one_thread() -> None:
    """Keep torch and numba on one thread; `one_thread_jax` does it for JAX."""
    import torch

    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    torch.set_num_threads(1)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="bench.clients", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--qubits", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--subset", type=int, default=100, help="clients of the loop")
    parser.add_argument("--together", type=int, default=50, help="clients of a launch of JAX")
    parser.add_argument("--only", nargs="*", choices=tuple(JAX), default=tuple(JAX))
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Print the table."""
    given = parse(arguments)
    one_thread()
    if given.device == "cuda":
        os.environ.setdefault("JAX_PLATFORMS", "cuda")
    fleet = random_fleet(given.clients, given.rows, given.qubits)
    work = tasks(fleet, given.qubits, given.steps, given.device)
    print(f"{given.clients} clients, {given.steps} steps, {given.rows} rows, {given.qubits} qubits")
    print(head(("", "s", "compilation or first call, s", "of `train_together`", *DIFFER)))
    reference, ours = loop(work, given.subset), together(work)
    contenders: dict[str, Callable[[], Outcome]] = {LOOP: lambda: reference, TOGETHER: lambda: ours}
    for name in given.only:
        contenders[name] = partial(in_jax, JAX[name], work, fleet, given.together)
    wrong = False
    for name, run in contenders.items():
        try:
            outcome = run()
        except NotInstalledError:
            print(table_row([name, "not installed", "-", "-", "-"]), flush=True)
            continue
        # The loop trains a subset only; the others are held to it there, and to ours elsewhere.
        expected = np.concatenate([reference.losses, ours.losses[len(reference.losses) :]])
        text, agrees = line(name, outcome, expected, ours.seconds)
        print(text, flush=True)
        wrong |= not agrees
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
