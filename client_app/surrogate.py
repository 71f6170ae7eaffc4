"""A linear model in the quantum one's place: which lambda and tau a site's rows speak for.

Multinomial logistic regression on the same projected features minimises the same loss, and costs no
circuit. Its validation loss says whether the soft labels help on these rows, and how much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from quantum import TrainingData

Floats = npt.NDArray[np.float64]
Pair = tuple[float, float]
"""lambda and tau."""

STEPS = 200


def choose_terms(
    data: TrainingData,
    seen: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    usual: Pair,
    others: Iterable[Pair],
) -> Pair:
    """Choose lambda and tau by the validation loss of the linear model.

    Parameters
    ----------
    data : TrainingData
        What the site trains on, with soft labels; -1 is the label of a row without one.
    seen, labels : ndarray, shapes (validation rows, n) and (validation rows,)
        The validation rows' projected features, and their classes.
    usual : (float, float)
        What is kept unless another is better by more than a standard error.
    others : iterable of (float, float)
        The other candidates.

    Returns
    -------
    (float, float)
        The pair of the lowest loss, or the usual one. The loss is the cross-entropy with the class
        weights; the error is that of the mean of its differences, row by row, from the usual
        pair's.
    """
    weights = _class_weights(data)[labels]
    if len(labels) < 2 or not weights.sum():
        return usual
    weights = weights / weights.mean()

    def losses(pair: Pair) -> Floats:
        model = fit_linear(data, *pair)
        logs = model.log_probabilities(seen)[np.arange(len(labels)), labels]
        return np.asarray(-weights * logs)

    reference = losses(usual)
    best, gain, error = usual, 0.0, 0.0
    for pair in others:
        differences = reference - losses(pair)
        if differences.mean() > gain:
            best, gain = pair, float(differences.mean())
            error = float(differences.std(ddof=1) / np.sqrt(len(labels)))
    return best if gain > error else usual


class Linear:
    """Class scores that are linear in the features, (rows, n) -> (rows, C)."""

    def __init__(self, mean: Floats, scale: Floats, matrix: Floats) -> None:
        self._mean, self._scale, self._matrix = mean, scale, matrix

    def log_probabilities(self, features: npt.ArrayLike) -> Floats:
        """Return the logarithms of the class probabilities, (rows, C)."""
        from scipy.special import log_softmax

        rows = (np.asarray(features, dtype=np.float64) - self._mean) / self._scale
        return np.asarray(log_softmax(_with_one(rows) @ self._matrix, axis=1))


def fit_linear(data: TrainingData, weight: float, temperature: float) -> Linear:
    """Fit the linear model to the loss of a site's training (`objective`), with an L2 penalty.

    Parameters
    ----------
    data : TrainingData
        Rows, labels, soft labels and class weights.
    weight, temperature : float
        lambda and tau.
    """
    from scipy.optimize import minimize

    rows = np.asarray(data.features, dtype=np.float64)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0] = 1.0
    inputs = _with_one((rows - mean) / scale)
    classes = len(_class_weights(data))
    penalty = np.full((inputs.shape[1], 1), 1 / len(rows))
    penalty[-1] = 0  # of the bias none

    def value(flat: Floats) -> tuple[float, Floats]:
        matrix = flat.reshape(-1, classes)
        loss, of_logits = objective(inputs @ matrix, data, weight, temperature)
        loss += float((penalty * matrix**2).sum()) / 2
        return loss, (inputs.T @ of_logits + penalty * matrix).ravel()

    start = np.zeros(inputs.shape[1] * classes)
    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return Linear(mean, scale, found.x.reshape(-1, classes))


def objective(
    logits: Floats, data: TrainingData, weight: float, temperature: float
) -> tuple[float, Floats]:
    """Return the loss of logits (rows, C), and its gradient with respect to them.

    ``(1 - lambda) sum_r w[y_r] CE_r / sum_r w[y_r] + lambda tau^2 sum_r v_r KL_r / sum_r v_r``: the
    first sums over rows with a label, v_r is w[y_r] of such a row and `quantum.losses.row_weights`
    of one without. It is `quantum.losses.distilled_loss`, with its gradient written down.
    """
    from scipy.special import log_softmax

    labels, classes = np.asarray(data.labels), logits.shape[1]
    by_class, known = _class_weights(data), np.asarray(data.labels) >= 0
    hard = np.where(known, by_class[labels], 0.0)
    hard /= hard.sum() or 1.0
    target = np.where(known[:, None], np.eye(classes)[labels], 0.0)
    logs = log_softmax(logits, axis=1)
    loss = -(1 - weight) * float(hard @ (target * logs).sum(axis=1))
    gradient = (1 - weight) * hard[:, None] * (np.exp(logs) - target)
    if not weight:
        return loss, gradient
    given = np.asarray(data.soft_labels, dtype=np.float64)
    tiny = np.finfo(np.float64).tiny
    mean = 1 / (given / np.maximum(by_class, tiny)).sum(axis=1)
    shares = np.where(known, by_class[labels], mean)
    shares /= shares.sum() or 1.0
    soft = log_softmax(np.log(np.maximum(given, tiny)) / temperature, axis=1)
    softened, student = np.exp(soft), log_softmax(logits / temperature, axis=1)
    divergence = (softened * (soft - student)).sum(axis=1)
    loss += weight * temperature**2 * float(shares @ divergence)
    gradient += weight * temperature * shares[:, None] * (np.exp(student) - softened)
    return loss, gradient


def _class_weights(data: TrainingData) -> Floats:
    if data.class_weights is not None:
        return np.asarray(data.class_weights, dtype=np.float64)
    return np.ones(np.asarray(data.soft_labels).shape[1])


def _with_one(rows: Floats) -> Floats:
    return np.hstack([rows, np.ones((len(rows), 1))])
