"""Adam on small circuits by compiled loops, many clients side by side.

The step is that of `quantum.training.optimisers.run_adam` on `Problem.by_autograd`, which tests
hold it to. Each client keeps its own rows, steps, rates, class weights, lambda, tau and proximal
weight; what shares a launch is the circuit.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from core import local_optimizer
from quantum.classifier import check_features
from quantum.costs import step_rows
from quantum.engines.pauli.compiled import kernels
from quantum.engines.pauli.engine import MOST_LANES, PauliEngine
from quantum.engines.pauli.rotation_plan import RotationPlan
from quantum.training.schedule import learning_rate, not_finite
from quantum.training.task import TrainTask

Trained = tuple[np.ndarray, list[float], float]
"""Parameters (D,), each step's loss, the loss of the start."""


def can_compile(task: TrainTask) -> bool:
    """Whether the compiled loops do this training: Adam, all angles weights, no similarities."""
    engine = task.classifier.engine
    return (
        isinstance(engine, PauliEngine)
        and local_optimizer(task.train.optimizer, engine.name) == "adam"
        and engine.ansatz.formulas is None
        and task.distill.features == 0
        and task.steps > 0
        and task.privacy is None
    )


def load_compiled(task: TrainTask) -> None:
    """Load a training's compiled functions, once a process, which is no part of its seconds."""
    engine = task.classifier.engine
    if not isinstance(engine, PauliEngine):
        return
    if not kernels().evaluate_lanes.signatures:
        rows = np.asarray(task.data.features)[:1]
        check_features(rows, task.classifier.ansatz.n_qubits)
        points = np.zeros((1, engine.ansatz.slots))
        engine.evaluate(points, engine.prepare(rows))
    if can_compile(task) and not kernels().train_lanes.signatures:
        train_compiled([dataclasses.replace(task, steps=1)])


def train_compiled(tasks: Sequence[TrainTask]) -> list[Trained | Exception]:
    """Train clients that `can_compile`, in the order of the tasks."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, task in enumerate(tasks):
        rows = len(task.data.features)
        size = step_rows(task.train, rows)
        plan = _plan(task)
        batch_rows = size if size < rows else 0
        key = batch_rows, id(plan), task.classifier.head, _distilled(task)
        groups.setdefault(key, []).append(index)
    found: dict[int, Trained | Exception] = {}
    for (batch_rows, *_), members in groups.items():
        lanes = max(1, MOST_LANES // _plan(tasks[members[0]]).readouts)
        # Those with equally many steps side by side: a launch takes as many as its longest.
        ordered = sorted(members, key=lambda index: tasks[index].steps)
        for start in range(0, len(ordered), lanes):
            part = ordered[start : start + lanes]
            outcomes = _launch([tasks[index] for index in part], batch_rows)
            found |= zip(part, outcomes, strict=True)
    return [found[index] for index in range(len(tasks))]


def _plan(task: TrainTask) -> RotationPlan:
    engine = task.classifier.engine
    assert isinstance(engine, PauliEngine)
    return engine.plan


def _distilled(task: TrainTask) -> bool:
    return task.distill.weight > 0


def _launch(tasks: Sequence[TrainTask], batch_rows: int) -> list[Trained | Exception]:
    """Train clients of one circuit, all with mini-batches of so many rows, or none (0)."""
    errors: dict[int, Exception] = {}
    starts: dict[int, np.ndarray] = {}
    for index, task in enumerate(tasks):
        try:
            check_features(task.data.features, task.classifier.ansatz.n_qubits)
            starts[index] = task.classifier.flatten(task.parameters)
        except Exception as error:  # one client's failure is its own
            errors[index] = error
    fine = [index for index in range(len(tasks)) if index not in errors]
    found: dict[int, Trained | Exception] = dict(errors)
    if not fine:
        return [found[index] for index in range(len(tasks))]
    theta = np.stack([starts[index] for index in fine])
    losses, failed = _train([tasks[index] for index in fine], theta, batch_rows)
    for place, index in enumerate(fine):
        own = losses[place, : tasks[index].steps].tolist()
        step = int(failed[place])
        found[index] = not_finite(own[step], step) if step >= 0 else (theta[place], own, own[0])
    return [found[index] for index in range(len(tasks))]


def _train(
    tasks: Sequence[TrainTask],
    theta: np.ndarray,
    batch_rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Train in place; return losses (clients, steps) and the steps at which numbers failed."""
    engine = tasks[0].classifier.engine
    assert isinstance(engine, PauliEngine)
    encoded = engine.prepare_all([task.data.features for task in tasks])
    steps = np.array([task.steps for task in tasks])
    losses, rates = np.zeros((2, len(tasks), steps.max()))
    for client, task in enumerate(tasks):
        rate = learning_rate(task.train, task.step_offset)
        rates[client, : task.steps] = [rate(step) for step in range(task.steps)]
    labels = np.concatenate([np.asarray(task.data.labels, dtype=np.int64) for task in tasks])
    data = (
        *(
            np.concatenate([rows.blocks for rows in encoded]),
            _starts(len(r.blocks) for r in encoded),
        ),
        *(labels, *_soft_labels(tasks), _starts(rows.rows for rows in encoded)),
    )
    terms = (
        np.stack([_class_weights(task) for task in tasks]),
        np.array([float(task.distill.weight) for task in tasks]),
        np.array([float(task.distill.temperature) for task in tasks]),
        np.array([float(task.train.proximal) for task in tasks]),
    )
    batches, linear = _batches(tasks, int(steps.max()), batch_rows), tasks[0].classifier.linear
    failed = kernels().train_lanes(
        engine.plan.arrays, theta, linear, data, batches, terms, steps, rates, losses
    )
    return losses, failed


def _starts(lengths: object) -> np.ndarray:
    return np.array([0, *itertools.accumulate(lengths)], dtype=np.int64)  # type: ignore[call-overload]


def _class_weights(task: TrainTask) -> np.ndarray:
    given = task.data.class_weights
    return np.ones(task.classifier.classes) if given is None else np.asarray(given, np.float64)


def _soft_labels(tasks: Sequence[TrainTask]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Softened soft labels p of all rows, (rows, C), their ``sum_c p log p``, and rows' weights."""
    classes = tasks[0].classifier.classes
    if not _distilled(tasks[0]):
        return np.zeros((0, classes)), np.zeros(0), np.zeros(0)
    parts = [soften(np.asarray(t.data.soft_labels), t.distill.temperature) for t in tasks]
    soft = np.concatenate(parts)
    logs = np.log(np.where(soft > 0, soft, 1.0))
    return soft, (soft * logs).sum(axis=1), np.concatenate([_row_weights(t) for t in tasks])


def _row_weights(task: TrainTask) -> np.ndarray:
    """Weights (rows,) of the rows in the divergence, as `quantum.losses.row_weights`."""
    labels, soft = np.asarray(task.data.labels), np.asarray(task.data.soft_labels, np.float64)
    if task.data.class_weights is None:
        return np.ones(len(labels))
    weights = _class_weights(task)
    mean = 1 / (soft / np.maximum(weights, np.finfo(np.float64).tiny)).sum(axis=1)
    return np.asarray(np.where(labels >= 0, weights[np.maximum(labels, 0)], mean))


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Soften distributions (rows, C) as `quantum.losses.soften`, in float64."""
    lifted = np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny)
    logs = np.log(lifted) / temperature
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _batches(tasks: Sequence[TrainTask], steps: int, size: int) -> np.ndarray:
    """Rows of each client's mini-batches, (clients, steps, size); none where all rows are taken.

    They are those of `Problem`: a shuffled order is used up, then comes a new one.
    """
    chosen = np.zeros((len(tasks), steps, size), dtype=np.int64)
    if not size:
        return chosen
    import torch

    for client, task in enumerate(tasks):
        rows = len(task.data.features)
        generator = torch.Generator().manual_seed(task.seed)
        per_order = rows // size
        for step in range(task.steps):
            place = step % per_order
            if place == 0:
                order = torch.randperm(rows, generator=generator).numpy()
            chosen[client, step] = order[place * size : (place + 1) * size]
    return chosen
