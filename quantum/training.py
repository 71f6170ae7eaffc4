"""Local training and evaluation of the quantum classifier.

Circuits are counted as `quantum.costs` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from federation import DataError, TrainSettings, explain
from quantum.classifier import Classifier
from quantum.costs import circuits_before_steps, circuits_of_forward, circuits_per_step
from quantum.losses import distilled_loss, proximal_term
from quantum.optimisers import learning_rate, run_adam, run_cobyla

if TYPE_CHECKING:
    from federation import DistillSettings
    from quantum.engines import Prepared


@dataclass(frozen=True)
class TrainingData:
    """What a client trains on.

    Attributes
    ----------
    features : numpy.ndarray, shape (rows, n)
        Projected features in radians.
    labels : numpy.ndarray, shape (rows,), integer
        Classes 0 ... C-1.
    soft_labels : numpy.ndarray, shape (rows, C), optional
        The teacher's calibrated probabilities; needed when the distillation weight is > 0.
    class_weights : numpy.ndarray, shape (C,), optional
        Weights of the cross-entropy.
    """

    features: np.ndarray
    labels: np.ndarray
    soft_labels: np.ndarray | None = None
    class_weights: np.ndarray | None = None


@dataclass(frozen=True)
class TrainResult:
    """What a local training returns.

    Attributes
    ----------
    parameters : dict of numpy.ndarray
        Trained parameters, float32.
    steps : int
        Optimiser steps taken: gradient steps of Adam, evaluations of COBYLA after its start.
    losses : tuple of float
        Training loss of each step with all its terms: before Adam's update, or of the point that
        COBYLA tries.
    start_loss : float
        The loss where training starts; with Adam that of its first step.
    circuits : int
        Circuits as `quantum.costs` counts them, those of COBYLA's start included.
    """

    parameters: dict[str, np.ndarray]
    steps: int
    losses: tuple[float, ...]
    start_loss: float
    circuits: int


def train_local(
    classifier: Classifier,
    parameters: Mapping[str, np.ndarray],
    data: TrainingData,
    train: TrainSettings,
    distill: DistillSettings,
    steps: int,
    step_offset: int = 0,
    seed: int = 0,
) -> TrainResult:
    """Train a classifier on one client's rows.

    Parameters
    ----------
    classifier : Classifier
        The model.
    parameters : mapping of numpy.ndarray
        The round's global parameters: the start, and the anchor of the proximal term.
    data : TrainingData
        The client's rows.
    train : TrainSettings
        Optimiser, learning rate, schedule, batch, proximal weight.
    distill : DistillSettings
        ``weight`` lambda and ``temperature`` tau.
    steps : int
        Optimiser steps; COBYLA evaluates its start besides.
    step_offset : int
        This client's own steps of earlier rounds, for the inverse-time schedule.
    seed : int
        Draws the mini-batches; same seed, same numbers bit for bit.

    Returns
    -------
    TrainResult
        Parameters, losses and circuits.

    Raises
    ------
    DataError
        If rows, labels or soft labels do not fit each other.
    UserError
        If the loss stops being finite.
    """
    check_data(data, classifier.classes, distill.weight)
    problem = _Problem(classifier, parameters, data, train, distill, seed)
    if train.optimizer == "adam":
        rate = learning_rate(train, step_offset)
        theta, losses = run_adam(problem.loss, problem.anchor, steps, rate)
        flat, start_loss = theta.cpu().numpy(), losses[0]
    else:
        start = problem.anchor.double().cpu().numpy()
        flat, losses, start_loss = run_cobyla(problem.value, start, steps, train.learning_rate)
    circuits = circuits_before_steps(train, problem.rows)
    circuits += len(losses) * circuits_per_step(train, problem.rows, classifier.angles)
    result = classifier.spec.unflatten(flat)
    return TrainResult(result, len(losses), tuple(losses), start_loss, circuits)


def evaluate(
    classifier: Classifier,
    parameters: Mapping[str, np.ndarray],
    features: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Class probabilities of rows.

    Parameters
    ----------
    classifier : Classifier
        The model.
    parameters : mapping of numpy.ndarray
        Its parameters.
    features : numpy.ndarray, shape (rows, n)
        Projected features in radians.

    Returns
    -------
    tuple of numpy.ndarray and int
        Probabilities, float64, shape (rows, C); circuits, one a row.
    """
    prepared = classifier.prepare(features)
    return classifier.probabilities(parameters, prepared), circuits_of_forward(len(features))


def check_data(data: TrainingData, classes: int, distillation_weight: float) -> None:
    """Refuse rows, labels and soft labels that do not fit each other.

    Raises
    ------
    DataError
        With what does not fit.
    """
    rows, labels = len(data.features), np.asarray(data.labels)
    if labels.shape != (rows,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            explain(
                f"{rows} rows with labels of shape {labels.shape} and type {labels.dtype}",
                "one whole number per row",
                "check the label column",
            )
        )
    if rows and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            explain(
                f"labels from {labels.min()} to {labels.max()}",
                f"0 to {classes - 1}",
                "check the class names",
            )
        )
    taught = None if data.soft_labels is None else data.soft_labels.shape
    if distillation_weight > 0 and taught != (rows, classes):
        raise DataError(
            explain(
                f"soft labels of shape {taught} with distill.weight = {distillation_weight}",
                f"({rows}, {classes}), the teacher's probabilities of each row",
                "give the teacher's soft labels or set distill.weight=0",
            )
        )


class _Problem:
    """One client's loss as a function of the flat parameter vector."""

    def __init__(
        self,
        classifier: Classifier,
        parameters: Mapping[str, np.ndarray],
        data: TrainingData,
        train: TrainSettings,
        distill: DistillSettings,
        seed: int,
    ) -> None:
        engine = classifier.engine
        self._classifier = classifier
        self._prepared = classifier.prepare(data.features)
        self._distill = distill
        self._proximal = train.proximal
        self.rows = len(data.features)
        self.batch = min(train.batch_rows, self.rows) if train.batch_rows else self.rows
        self._order = torch.Generator().manual_seed(seed)
        self._queue = torch.empty(0, dtype=torch.int64)
        self.anchor = self._real(classifier.spec.flatten(parameters))
        self._labels = torch.from_numpy(np.array(data.labels, dtype=np.int64)).to(engine.device)
        self._soft = None if data.soft_labels is None else self._real(data.soft_labels)
        self._weights = None if data.class_weights is None else self._real(data.class_weights)

    def loss(self, theta: torch.Tensor, step: int) -> torch.Tensor:
        """Loss of one step's mini-batch (all rows: no batch)."""
        if self.batch == self.rows:
            return self._on(theta, self._prepared, self._labels, self._soft)
        rows = self._next_batch()
        soft = None if self._soft is None else self._soft[rows]
        return self._on(theta, self._prepared.take(rows), self._labels[rows], soft)

    def value(self, flat: np.ndarray) -> float:
        """Loss of all rows, without gradient."""
        with torch.no_grad():
            return float(self._on(self._real(flat), self._prepared, self._labels, self._soft))

    def _on(
        self,
        theta: torch.Tensor,
        prepared: Prepared,
        labels: torch.Tensor,
        soft: torch.Tensor | None,
    ) -> torch.Tensor:
        logits = self._classifier.logits_tensor(theta, prepared)
        weight, temperature = self._distill.weight, self._distill.temperature
        loss = distilled_loss(logits, labels, soft, weight, temperature, self._weights)
        if self._proximal > 0:
            loss = loss + proximal_term(theta, self.anchor, self._proximal)
        return loss

    def _next_batch(self) -> torch.Tensor:
        """Next rows of a shuffled order; a new order when fewer than a batch are left."""
        if len(self._queue) < self.batch:
            self._queue = torch.randperm(self.rows, generator=self._order)
        rows, self._queue = self._queue[: self.batch], self._queue[self.batch :]
        return rows.to(self.anchor.device)

    def _real(self, values: np.ndarray) -> torch.Tensor:
        engine = self._classifier.engine
        copy = torch.from_numpy(np.array(values, dtype=np.float64))  # torch wants it writable
        return copy.to(engine.dtype).to(engine.device)
