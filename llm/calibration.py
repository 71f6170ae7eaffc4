"""From logits to calibrated probabilities: softmax, temperature, and the figures of a teacher.

Pure NumPy and SciPy; no model is known here.
"""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = 0.2, 10.0
SPREAD = 0.5
"""Of log T for soft labels: before any row, T is within 0.6 and 1.65 at two of three sites."""

LEAST_PROBABILITY = 1e-12  # as in `data.metrics`, which this package may not import


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return log-probabilities of ``logits / temperature``.

    Parameters
    ----------
    logits : np.ndarray
        (rows, C).
    temperature : float
        Softens above 1, sharpens below.

    Returns
    -------
    np.ndarray
        float64, (rows, C).
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of ``logits / temperature``, float64, (rows, C)."""
    return np.asarray(np.exp(log_softmax(logits, temperature)))


def mean_nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the labels, in nats.

    Parameters
    ----------
    logits : np.ndarray
        (rows, C), at least one row.
    labels : np.ndarray
        (rows,) class numbers.
    temperature : float
        Divides the logits.
    """
    rows = np.arange(len(labels))
    return float(-log_softmax(logits, temperature)[rows, labels].mean())


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Return the loss that is reported: `mean_nll` of probabilities of at least 1e-12.

    Parameters as in `mean_nll`. The quantum model's loss (`data.scores`) is bounded likewise;
    choosing temperatures and epochs needs the unbounded one.
    """
    rows = np.arange(len(labels))
    found = log_softmax(logits, temperature)[rows, labels]
    return float(-np.maximum(found, np.log(LEAST_PROBABILITY)).mean())


def fit_temperature(
    logits: np.ndarray,
    labels: np.ndarray,
    bounds: tuple[float, float] = (LOWEST, HIGHEST),
    spread: float = np.inf,
) -> float:
    """Return the temperature T that minimises the negative log-likelihood (Guo et al. 2017).

    With a finite `spread` the sum over rows gains ``(log T)^2 / (2 spread^2)``: the most likely T
    if log T was normal about 0 beforehand. A handful of rows would else run into a bound.

    Parameters
    ----------
    logits : np.ndarray
        (rows, C) of rows that the model was not trained on.
    labels : np.ndarray
        (rows,) class numbers.
    bounds : tuple of float
        Lowest and highest temperature.
    spread : float
        Standard deviation of log T before a row is seen; infinite: rows alone decide.

    Returns
    -------
    float
        1 where rows do not determine it: none at all, one class only, or every row right (any
        lower temperature would then look better still).
    """
    from scipy.optimize import minimize_scalar

    if len(np.unique(labels)) < 2 or (np.argmax(logits, axis=1) == labels).all():
        return 1.0
    low, high = np.log(bounds)
    result = minimize_scalar(
        lambda log_t: (
            mean_nll(logits, labels, float(np.exp(log_t)))
            + log_t**2 / (2 * spread**2 * len(labels))
        ),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(result.x))


def soft_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of soft labels, which a handful of rows does not push to a bound."""
    return fit_temperature(logits, labels, spread=SPREAD)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose largest logit is the label's."""
    return float((np.argmax(logits, axis=1) == labels).mean())


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 score over all classes, 0 for one that does not occur at all.

    Parameters
    ----------
    logits : np.ndarray
        (rows, C).
    labels : np.ndarray
        (rows,) class numbers.

    Returns
    -------
    float
        As `data.scores` defines it.
    """
    predicted = np.argmax(logits, axis=1)
    values = []
    for label in range(logits.shape[1]):
        hits = int(((predicted == label) & (labels == label)).sum())
        total = int((predicted == label).sum() + (labels == label).sum())
        values.append(2 * hits / max(total, 1))
    return float(np.mean(values))


def figures(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """Return ``loss`` (at the temperature), ``raw_loss``, ``accuracy`` and ``macro_f1``."""
    return {
        "loss": loss(logits, labels, temperature),
        "raw_loss": loss(logits, labels),
        "accuracy": accuracy(logits, labels),
        "macro_f1": macro_f1(logits, labels),
    }
