"""Local training and evaluation of the quantum classifier.

Circuits are counted as `quantum.costs` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core import DataError, TrainSettings, local_optimizer
from quantum.classifier import Classifier
from quantum.costs import circuits_before_steps, circuits_per_step
from quantum.training.optimisers import Gains, learning_rate, run_adam, run_cobyla, run_spsa
from quantum.training.problem import Problem, TrainingData

if TYPE_CHECKING:
    from core import DistillSettings


@dataclass(frozen=True)
class TrainResult:
    """What a local training returns.

    Attributes
    ----------
    parameters : dict of numpy.ndarray
        Trained parameters, float32.
    steps : int
        Optimiser steps taken: steps of Adam or SPSA, evaluations of COBYLA after its start.
    losses : tuple of float
        Training loss of each step with all its terms: before Adam's update, the mean of SPSA's
        two values, or of the point that COBYLA tries.
    start_loss : float
        The loss where training starts; with Adam and SPSA that of the first step.
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
        ``weight`` lambda, ``temperature`` tau, and the weight of ``features``.
    steps : int
        Optimiser steps; COBYLA evaluates its start besides.
    step_offset : int
        This client's own steps of earlier rounds, for the inverse-time schedule.
    seed : int
        Draws the mini-batches and SPSA's signs; same seed, same numbers.

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
    check_data(data, classifier.classes, distill)
    problem = Problem(classifier, parameters, data, train, distill, seed)
    optimizer, start = local_optimizer(train.optimizer, classifier.engine.name), problem.start
    if optimizer == "cobyla":
        flat, losses, start_loss = run_cobyla(problem.value, start, steps, train.learning_rate)
    elif optimizer == "spsa":
        flat, losses = _spsa(problem, train, steps, step_offset, seed)
        start_loss = losses[0]
    else:
        gradient = problem.by_autograd if optimizer == "adam" else problem.by_shifts
        rate = learning_rate(train, step_offset)
        theta, losses = run_adam(gradient, problem.anchor, steps, rate)
        flat, start_loss = theta.double().cpu().numpy(), losses[0]
    per_step = circuits_per_step(
        train, problem.rows, classifier.ansatz.shifts, classifier.engine.name
    )
    circuits = circuits_before_steps(train, problem.rows) + len(losses) * per_step
    result = classifier.unflatten(flat)
    return TrainResult(result, len(losses), tuple(losses), start_loss, circuits)


def _spsa(
    problem: Problem, train: TrainSettings, steps: int, step_offset: int, seed: int
) -> tuple[np.ndarray, list[float]]:
    """Run SPSA with the gains of the settings; return the last parameters and the losses."""
    # Spall's advice: A a tenth of the steps expected, here of the most in a round.
    gains = Gains(train.learning_rate, train.perturbation, train.max_steps / 10)
    rng, angles = np.random.default_rng(seed), problem.angles
    return run_spsa(problem.measure, problem.start, angles, steps, gains, step_offset, rng)


def evaluate(
    classifier: Classifier, parameters: Mapping[str, np.ndarray], features: np.ndarray
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
    encoded = classifier.prepare(features)
    return classifier.probabilities(parameters, encoded), len(features)


def check_data(data: TrainingData, classes: int, distill: DistillSettings) -> None:
    """Refuse rows, labels, soft labels and hidden states that do not fit each other.

    Raises
    ------
    DataError
        With what does not fit.
    """
    rows, labels = len(data.features), np.asarray(data.labels)
    if labels.shape != (rows,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{rows} rows with labels of shape {labels.shape} and type {labels.dtype}",
            "one whole number per row",
            "check the label column",
        )
    if rows and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"labels from {labels.min()} to {labels.max()}",
            f"0 to {classes - 1}",
            "check the class names",
        )
    soft, states = data.soft_labels, data.hidden
    shape = None if soft is None else soft.shape
    if distill.weight > 0 and shape != (rows, classes):
        raise DataError(
            f"soft labels of shape {shape} with distill.weight = {distill.weight}",
            f"({rows}, {classes}), the teacher's probabilities of each row",
            "give the teacher's soft labels or set distill.weight=0",
        )
    fits = states is not None and states.ndim == 2 and len(states) == rows
    if distill.features > 0 and not (fits and np.isfinite(states).all()):  # type: ignore[arg-type]
        shape = None if states is None else states.shape
        raise DataError(
            f"hidden states of shape {shape} with distill.features = {distill.features:g}",
            f"({rows}, d), finite numbers",
            "give the teacher's hidden states or set distill.features=0",
        )
