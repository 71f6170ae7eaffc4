"""What a local training takes and returns; this module loads no heavy library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core import DataError, DistillSettings, TrainSettings
from quantum.classifier import Classifier


@dataclass(frozen=True)
class TrainingData:
    """What a client trains on.

    Attributes
    ----------
    features : numpy.ndarray, shape (rows, n)
        Projected features in radians.
    labels : numpy.ndarray, shape (rows,), integer
        Classes 0 ... C-1; -1: a row without a label, which learns from its soft labels alone.
    soft_labels : numpy.ndarray, shape (rows, C), optional
        The teacher's calibrated probabilities; needed when the distillation weight is > 0.
    class_weights : numpy.ndarray, shape (C,), optional
        Weights of the classes.
    hidden : numpy.ndarray, shape (rows, d), optional
        The teacher's hidden states; needed when the weight of feature distillation is > 0.
    """

    features: np.ndarray
    labels: np.ndarray
    soft_labels: np.ndarray | None = None
    class_weights: np.ndarray | None = None
    hidden: np.ndarray | None = None


@dataclass(frozen=True)
class RowPrivacy:
    """Differential privacy of single rows in a training.

    Attributes
    ----------
    clip : float
        Longest 2-norm of a row's gradient.
    deviation : float
        Standard deviation of the normal noise on each number of the clipped gradients' sum.
    seed : int or None
        Of the noise; None: from the system.
    """

    clip: float
    deviation: float
    seed: int | None


@dataclass(frozen=True)
class TrainTask:
    """One client's local training.

    Attributes
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
    privacy : RowPrivacy, optional
        Trains on noised gradients of all rows, of the labels' cross-entropy alone.
    """

    classifier: Classifier
    parameters: Mapping[str, np.ndarray]
    data: TrainingData
    train: TrainSettings
    distill: DistillSettings
    steps: int
    step_offset: int = 0
    seed: int = 0
    privacy: RowPrivacy | None = None


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
    noise : float
        Noise over signal of the training's gradient estimates (`quantum.training.estimates`);
        0 by autograd.
    """

    parameters: dict[str, np.ndarray]
    steps: int
    losses: tuple[float, ...]
    start_loss: float
    circuits: int
    noise: float = 0.0


def check_data(data: TrainingData, classes: int, distill: DistillSettings) -> None:
    """Refuse rows, labels, weights, soft labels and hidden states that do not fit each other.

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
    lowest = -1 if distill.weight > 0 else 0
    if rows and (labels.min() < lowest or labels.max() >= classes):
        unlabelled = ", or -1 (no label) where distill.weight > 0"
        raise DataError(
            f"labels from {labels.min()} to {labels.max()}",
            f"0 to {classes - 1}{unlabelled}",
            "check the class names",
        )
    if data.class_weights is not None and np.shape(data.class_weights) != (classes,):
        raise DataError(
            f"class weights of shape {np.shape(data.class_weights)}",
            f"({classes},), one for each class",
            "give as many, or none",
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
