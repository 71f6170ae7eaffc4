"""One client's loss on its rows, in the forms that the optimisers ask for.

The loss depends on the circuit only through the expectations z (rows, R). What comes after them,
the read-out's scale and bias and all loss terms, is classical and differentiated by autograd, so
shifted or perturbed circuits are all that a gradient costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from core import DistillSettings, TrainSettings
from quantum.classifier import Classifier, readout_logits
from quantum.costs import step_rows
from quantum.engines.base import evaluate_points
from quantum.losses import (
    distilled_loss,
    feature_distillation,
    proximal_term,
    teacher_similarity,
)

if TYPE_CHECKING:
    from quantum.engines.base import Prepared


@dataclass(frozen=True)
class Batch:
    """Rows of one step: encoded, with labels and, where asked for, what the teacher says.

    That is soft labels (rows, C), and how alike it finds the rows (rows, rows).
    """

    prepared: Prepared
    labels: torch.Tensor
    soft: torch.Tensor | None
    alike: torch.Tensor | None = None


class Problem:
    """One client's loss as a function of the flat parameter vector.

    Parameters
    ----------
    classifier : Classifier
        The model.
    parameters : mapping of numpy.ndarray
        The round's global parameters: start, and anchor of the proximal term.
    data : TrainingData
        The client's rows.
    train : TrainSettings
        Batch size and proximal weight.
    distill : DistillSettings
        Weights and temperature of the distillation.
    seed : int
        Draws the mini-batches.
    """

    def __init__(
        self,
        classifier: Classifier,
        parameters: Mapping[str, np.ndarray],
        data: TrainingData,
        train: TrainSettings,
        distill: DistillSettings,
        seed: int,
    ) -> None:
        self._classifier = classifier
        self._distill = distill
        self._proximal = train.proximal
        self.rows, self.angles = len(data.features), classifier.angles
        self._batch_rows = step_rows(train, self.rows)
        self._order = torch.Generator().manual_seed(seed)
        self._queue = torch.empty(0, dtype=torch.int64)
        self._flat = classifier.spec.flatten(parameters)
        self.anchor = self._real(self._flat)
        labels = torch.from_numpy(np.array(data.labels, dtype=np.int64))
        soft = None if data.soft_labels is None else self._real(data.soft_labels)
        prepared = classifier.prepare(data.features, self._batch_rows)
        hidden = data.hidden if distill.features > 0 else None
        self._hidden = None if hidden is None else self._real(hidden - hidden.mean(axis=0))
        whole = torch.arange(self.rows) if self._batch_rows == self.rows else None
        alike = None if whole is None else self._alike(whole)
        self._all = Batch(prepared, labels.to(classifier.engine.device), soft, alike)
        self._weights = None if data.class_weights is None else self._real(data.class_weights)
        self._fixed: Batch | None = None

    def start(self) -> np.ndarray:
        """Return the parameters where training starts, float64, shape (D,)."""
        return self._flat.copy()

    def by_autograd(self, theta: torch.Tensor, step: int) -> tuple[float, torch.Tensor]:
        """Loss and gradient (D,) of a step's rows through the engine's own derivatives."""
        batch = self._next_batch()
        leaf = theta.detach().requires_grad_(True)
        z = self._classifier.engine.expectations(leaf[: self.angles], batch.prepared)
        loss = self._loss(leaf, z, leaf[self.angles :], batch)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.item(), gradient

    def by_shifts(self, theta: torch.Tensor, step: int) -> tuple[float, torch.Tensor]:
        """Loss and gradient (D,) by the parameter-shift rule, all shifts in one job.

        ``dz/da_j = (z(a_j + pi/2) - z(a_j - pi/2)) / 2``, exact for Pauli rotations (Schuld et
        al., arXiv 1811.11184); the chain rule through the loss is autograd's.
        """
        batch = self._next_batch()
        angles = theta[: self.angles].double().cpu().numpy()
        shifts = math.pi / 2 * np.eye(self.angles)
        points = np.concatenate([angles[None], angles + shifts, angles - shifts])
        z = self._real(evaluate_points(self._classifier.engine, points, batch.prepared))
        center = z[0].clone().requires_grad_(True)
        leaf = theta.detach().requires_grad_(True)
        loss = self._loss(leaf, center, leaf[self.angles :], batch)
        of_z, of_theta = torch.autograd.grad(loss, (center, leaf))
        slopes = (z[1 : 1 + self.angles] - z[1 + self.angles :]) / 2
        of_theta[: self.angles] += torch.einsum("prc,rc->p", slopes, of_z)
        return loss.item(), of_theta

    def measure(
        self, points: np.ndarray, readout: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses (K,) of angles (K, P) on one step's rows, and mean gradient to the read-out."""
        return self._measured(points, readout, self._next_batch())

    def value(self, flat: np.ndarray) -> float:
        """Loss of one point, without gradient; the same rows at each call."""
        if self._fixed is None:
            self._fixed = self._next_batch()
        points, readout = flat[None, : self.angles], flat[self.angles :]
        return float(self._measured(points, readout, self._fixed)[0][0])

    def _measured(
        self, points: np.ndarray, readout: np.ndarray, batch: Batch
    ) -> tuple[np.ndarray, np.ndarray]:
        z = self._real(evaluate_points(self._classifier.engine, points, batch.prepared))
        leaf = self._real(readout).requires_grad_(True)
        losses = torch.stack(
            [
                self._loss(torch.cat([self._real(point), leaf]), each, leaf, batch)
                for point, each in zip(points, z, strict=True)
            ]
        )
        (gradient,) = torch.autograd.grad(losses.mean(), leaf)
        return losses.detach().double().cpu().numpy(), gradient.double().cpu().numpy()

    def _logits(self, z: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
        half = len(readout) // 2
        return readout_logits(z, readout[:half], readout[half:])

    def _loss(
        self, theta: torch.Tensor, z: torch.Tensor, readout: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        logits = self._logits(z, readout)
        weight, temperature = self._distill.weight, self._distill.temperature
        loss = distilled_loss(logits, batch.labels, batch.soft, weight, temperature, self._weights)
        if batch.alike is not None:
            loss = loss + self._distill.features * feature_distillation(z, batch.alike)
        if self._proximal > 0:
            loss = loss + proximal_term(theta, self.anchor, self._proximal)
        return loss

    def _next_batch(self) -> Batch:
        """Next rows of a shuffled order; a new order when fewer than a batch are left."""
        size = self._batch_rows
        if size == self.rows:
            return self._all
        if len(self._queue) < size:
            self._queue = torch.randperm(self.rows, generator=self._order)
        rows, self._queue = self._queue[:size], self._queue[size:]
        rows = rows.to(self.anchor.device)
        soft = None if self._all.soft is None else self._all.soft[rows]
        prepared = self._all.prepared.take(rows)
        return Batch(prepared, self._all.labels[rows], soft, self._alike(rows))

    def _alike(self, rows: torch.Tensor) -> torch.Tensor | None:
        if self._hidden is None:
            return None
        return teacher_similarity(self._hidden[rows.to(self._hidden.device)])

    def _real(self, values: np.ndarray) -> torch.Tensor:
        engine = self._classifier.engine
        copy = torch.from_numpy(np.array(values, dtype=np.float64))  # torch wants it writable
        return copy.to(engine.dtype).to(engine.device)


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
    hidden : numpy.ndarray, shape (rows, d), optional
        The teacher's hidden states; needed when the weight of feature distillation is > 0.
    """

    features: np.ndarray
    labels: np.ndarray
    soft_labels: np.ndarray | None = None
    class_weights: np.ndarray | None = None
    hidden: np.ndarray | None = None
