"""One client's loss on its rows, in the forms that the optimisers need.

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
from torch import Tensor

from core import DistillSettings, TrainSettings
from quantum.classifier import Classifier
from quantum.costs import check_shifts, step_rows
from quantum.engines.base import evaluate_points
from quantum.losses import distilled_loss, feature_distillation, proximal_term, teacher_similarity
from quantum.training.estimates import Estimates, shot_variance
from quantum.training.task import TrainingData

if TYPE_CHECKING:
    from quantum.engines.base import EncodedRows


@dataclass(frozen=True)
class Batch:
    """Rows of one step: encoded, with labels, and where needed soft labels and similarities.

    Soft labels have shape (rows, C), the teacher's similarities of the rows (rows, rows).
    """

    encoded: EncodedRows
    labels: Tensor
    soft: Tensor | None
    similarity: Tensor | None = None


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

    Attributes
    ----------
    rows, angles : int
        Number of rows, and of angles P.
    start : numpy.ndarray, shape (D,)
        The parameters where training starts, float64.
    anchor : torch.Tensor, shape (D,)
        The same in the engine's type.
    estimates : Estimates
        How noisy the gradient estimates so far were.
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
        self._classifier, self._distill, self._proximal = classifier, distill, train.proximal
        self.rows, self.angles = len(data.features), classifier.angles
        self._batch_rows = step_rows(train, self.rows)
        self._generator = torch.Generator().manual_seed(seed)
        self._queue = torch.empty(0, dtype=torch.int64)
        self.start = classifier.flatten(parameters)
        self.anchor = self._tensor(self.start)
        self._weights = self._optional(data.class_weights)
        hidden = data.hidden if distill.features > 0 else None
        self._hidden = None if hidden is None else self._tensor(hidden - hidden.mean(axis=0))
        self._all = Batch(
            classifier.prepare(data.features, self._batch_rows),
            torch.from_numpy(np.array(data.labels, dtype=np.int64)).to(classifier.engine.device),
            self._optional(data.soft_labels),
            self._similarity(slice(None)) if self._batch_rows == self.rows else None,
        )
        self._fixed: Batch | None = None
        self.estimates, self._shots = Estimates(), int(getattr(classifier.engine, "shots", 0))

    def by_autograd(self, theta: Tensor, step: int) -> tuple[float, Tensor]:
        """Loss and gradient (D,) of a step's rows through the engine's own derivatives."""
        batch = self._next_batch()
        leaf = theta.detach().requires_grad_(True)
        z = self._classifier.expectations(leaf[: self.angles], batch.encoded)
        loss = self._loss(leaf, z, batch)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.item(), gradient

    def by_shifts(self, theta: Tensor, step: int) -> tuple[float, Tensor]:
        """Loss and gradient (D,) by the parameter-shift rule, all shifts in one job.

        ``dz/da_j = (z(a_j + pi/2) - z(a_j - pi/2)) / 2`` for each slot a_j, exact for Pauli
        rotations (Schuld et al., arXiv 1811.11184); the chain rule through the loss, and from
        slots to weights, is autograd's.

        Raises
        ------
        SettingsError
            If angles depend on features and weights at once.
        """
        circuit = self._classifier.ansatz
        check_shifts(circuit)
        batch = self._next_batch()
        weights = theta[: self.angles].detach().double().cpu().requires_grad_(True)
        slots = circuit.slot_values(weights)
        angles, count = slots.detach().numpy(), circuit.slots
        shifts = math.pi / 2 * np.eye(count)
        points = np.concatenate([angles[None], angles + shifts, angles - shifts])
        z = self._tensor(evaluate_points(self._classifier.engine, points, batch.encoded))
        center = z[0].clone().requires_grad_(True)
        leaf = theta.detach().requires_grad_(True)
        loss = self._loss(leaf, center, batch)
        of_z, of_theta = torch.autograd.grad(loss, (center, leaf))
        slopes = (z[1 : 1 + count] - z[1 + count :]) / 2
        of_slots = torch.einsum("prc,rc->p", slopes, of_z)
        if circuit.formulas is not None:
            (of_slots,) = torch.autograd.grad(slots, weights, of_slots.double().cpu())
        of_theta[: self.angles] += of_slots.to(of_theta)
        variances = 1 - (z[1 : 1 + count] ** 2 + z[1 + count :] ** 2) / 2
        spread = torch.einsum("prc,rc->", variances.clamp(min=0), of_z**2).item() / 2
        square = of_slots.square().sum().item()
        self.estimates.by_gradient(square, shot_variance(spread, self._shots))
        return loss.item(), of_theta

    def measure(
        self, points: np.ndarray, readout: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses (K,) of angles (K, P) on one step's rows, and mean gradient to the read-out."""
        losses, gradient, variance = self._measure(points, readout, self._next_batch())
        # The two points are 2 c apart in each angle.
        apart = float(np.linalg.norm(points[0] - points[-1])) / math.sqrt(self.angles)
        if apart > 0:
            slope = float(losses[0] - losses[-1]) / apart
            self.estimates.by_slope(slope, variance / apart**2, self.angles)
        return losses, gradient

    def value(self, flat: np.ndarray) -> float:
        """Loss of one point, without gradient; the same rows at each call."""
        if self._fixed is None:
            self._fixed = self._next_batch()
        losses, *_ = self._measure(flat[None, : self.angles], flat[self.angles :], self._fixed)
        return float(losses[0])

    def _measure(
        self, points: np.ndarray, readout: np.ndarray, batch: Batch
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return losses (K,), mean gradient to the head (H,), and the variance of their sum."""
        slots = self._classifier.ansatz.slot_values(points)
        z = self._tensor(evaluate_points(self._classifier.engine, slots, batch.encoded))
        z.requires_grad_(self._shots > 0)
        leaf = self._tensor(readout).requires_grad_(True)
        thetas = [torch.cat([self._tensor(point), leaf]) for point in points]
        losses = torch.stack([self._loss(*pair, batch) for pair in zip(thetas, z, strict=True)])
        (gradient,) = torch.autograd.grad(losses.mean(), leaf, retain_graph=self._shots > 0)
        variance = 0.0
        if self._shots:
            (of_z,) = torch.autograd.grad(losses.sum(), z)
            squares = of_z**2 * (1 - z.detach() ** 2).clamp(min=0)
            variance = shot_variance(float(squares.sum()), self._shots)
        return losses.detach().double().cpu().numpy(), gradient.double().cpu().numpy(), variance

    def _loss(self, theta: Tensor, z: Tensor, batch: Batch) -> Tensor:
        logits = self._classifier.head.logits(z, theta[self.angles :])
        weight, temperature = self._distill.weight, self._distill.temperature
        loss = distilled_loss(logits, batch.labels, batch.soft, weight, temperature, self._weights)
        if batch.similarity is not None:
            loss = loss + self._distill.features * feature_distillation(z, batch.similarity)
        if self._proximal > 0:
            loss = loss + proximal_term(theta, self.anchor, self._proximal)
        return loss

    def _next_batch(self) -> Batch:
        """Next rows of a shuffled order; a new order when fewer than a batch are left."""
        size = self._batch_rows
        if size == self.rows:
            return self._all
        if len(self._queue) < size:
            self._queue = torch.randperm(self.rows, generator=self._generator)
        rows, self._queue = self._queue[:size], self._queue[size:]
        rows = rows.to(self.anchor.device)
        soft = None if self._all.soft is None else self._all.soft[rows]
        encoded = self._all.encoded.take(rows)
        return Batch(encoded, self._all.labels[rows], soft, self._similarity(rows))

    def _similarity(self, rows: Tensor | slice) -> Tensor | None:
        return None if self._hidden is None else teacher_similarity(self._hidden[rows])

    def _tensor(self, values: np.ndarray) -> Tensor:
        engine = self._classifier.engine
        copy = torch.from_numpy(np.array(values, dtype=np.float64))  # torch wants it writable
        return copy.to(engine.dtype).to(engine.device)

    def _optional(self, values: np.ndarray | None) -> Tensor | None:
        return None if values is None else self._tensor(values)
