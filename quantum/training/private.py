"""Differentially private training: every row's gradient is clipped, and their sum noised.

DP-SGD (Abadi et al., CCS 2016, algorithm 1) on all rows in every step, so that nothing is claimed
for sampling: of a few thousand rows and a hundred numbers a whole step is cheap. A row's gradient
comes from the parameter-shift rule, whose shifted expectations are known row by row. It costs the
circuits of any gradient, on every backend, counted shots included.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from core import local_optimizer
from quantum.circuit import Circuit
from quantum.classifier import Classifier
from quantum.costs import check_shifts
from quantum.engines.base import EncodedRows, evaluate_points
from quantum.training.optimisers import run_adam, run_descent
from quantum.training.schedule import learning_rate
from quantum.training.task import TrainTask


def train_privately(task: TrainTask) -> tuple[np.ndarray, list[float], float]:
    """Train on noised gradients; return parameters (D,), each step's loss, the loss of the start.

    The losses carry no noise: they are for the site's own eyes.

    Raises
    ------
    SettingsError
        If angles depend on features and weights at once.
    """
    assert task.privacy is not None
    privacy, rng = task.privacy, np.random.default_rng(task.privacy.seed)
    rows = RowLosses(task)
    anchor = torch.from_numpy(task.classifier.flatten(task.parameters))

    def gradient(theta: Tensor, step: int) -> tuple[float, Tensor]:
        losses, slopes = rows.gradients(theta)
        drawn = torch.from_numpy(rng.normal(0.0, privacy.deviation, len(theta)))
        mean = (clipped_sum(slopes, privacy.clip) + drawn) / len(slopes)
        # FedProx's term knows no row: it needs neither clipping nor noise.
        return float(losses.mean()), mean + task.train.proximal * (theta - anchor)

    optimizer = local_optimizer(task.train.optimizer, task.classifier.engine.name)
    run = run_descent if optimizer == "descent" else run_adam
    theta, losses = run(gradient, anchor, task.steps, learning_rate(task.train, task.step_offset))
    return theta.numpy(), losses, losses[0]


def clipped_sum(slopes: Tensor, bound: float) -> Tensor:
    """Sum rows (rows, D), each shortened to at most a 2-norm; shape (D,)."""
    norms = slopes.norm(dim=1).clamp_min(torch.finfo(slopes.dtype).tiny)
    total: Tensor = (bound / norms).clamp_max(1.0) @ slopes
    return total


class RowLosses:
    """A client's rows, and each one's own loss: its cross-entropy times a weight of mean one."""

    def __init__(self, task: TrainTask) -> None:
        check_shifts(task.classifier.ansatz)
        self._classifier: Classifier = task.classifier
        self._encoded: EncodedRows = task.classifier.prepare(task.data.features)
        self._labels = torch.from_numpy(np.array(task.data.labels, dtype=np.int64))
        given = task.data.class_weights
        weights = np.ones(task.classifier.classes) if given is None else np.asarray(given, float)
        own = torch.from_numpy(weights)[self._labels]
        self._shares = own / own.mean()

    def gradients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows' losses (rows,) and their gradients (rows, D), float64."""
        circuit = self._classifier.ansatz
        weights, head = theta[: circuit.angles], theta[circuit.angles :]
        slots = circuit.slot_values(weights).numpy()
        shifts = math.pi / 2 * np.eye(circuit.slots)
        points = np.concatenate([slots[None], slots + shifts, slots - shifts])
        z = torch.from_numpy(evaluate_points(self._classifier.engine, points, self._encoded))
        losses, of_z, of_head = self._through_head(z[0], head)
        slopes = (z[1 : 1 + circuit.slots] - z[1 + circuit.slots :]) / 2
        of_slots = torch.einsum("prc,rc->rp", slopes, of_z)
        return losses, torch.cat([_to_weights(circuit, weights, of_slots), of_head], dim=1)

    def _through_head(self, z: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses (rows,), and their gradients to expectations (rows, K) and head (rows, H).

        Each row has a head of its own, all of them alike.
        """
        heads = head.expand(len(z), -1)
        logits_of = self._classifier.head.logits

        def loss(z_row: Tensor, head_row: Tensor, label: Tensor, share: Tensor) -> Tensor:
            logs = torch.log_softmax(logits_of(z_row[None], head_row)[0], dim=0)
            return -share * logs.gather(0, label[None])[0]

        both = torch.func.vmap(torch.func.grad_and_value(loss, argnums=(0, 1)))
        (of_z, of_head), losses = both(z, heads, self._labels, self._shares)
        return losses, of_z, of_head


def _to_weights(circuit: Circuit, weights: Tensor, of_slots: Tensor) -> Tensor:
    """Turn gradients to slots (rows, S) into those to weights (rows, P)."""
    if circuit.formulas is None:
        return of_slots
    slope: Tensor = torch.autograd.functional.jacobian(circuit.slot_values, weights)
    return of_slots @ slope
