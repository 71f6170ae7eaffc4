"""Prior correction: a shift of the class logits, fitted on validation rows and checked on others.

A model trained with other class frequencies, or weights, than those it is judged by is wrong in its
biases first. The shift is a multinomial regression with nothing but intercepts, offset by the
model's own log-probabilities (Saerens et al., Neural Computation 2002, fit it without labels).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FOLDS = 5
STEPS = 30
"""Newton's, at most: the loss is convex and has C - 1 free numbers."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PriorCorrection:
    """What validation says of a shift of the logits.

    Attributes
    ----------
    shift : ndarray, shape (C,)
        Added to the classes' logits; sums to 0.
    gain, error : float
        By how much the shift lowers the validation loss on rows that it was not fitted on, nats,
        and the standard error of that.
    """

    shift: Floats
    gain: float
    error: float

    @property
    def pays(self) -> bool:
        """Whether the gain is larger than its standard error."""
        return self.gain > self.error


def prior_correction(
    probabilities: Floats, labels: npt.NDArray[np.int64], balanced: bool, seed: int
) -> PriorCorrection:
    """Fit the shift of lowest validation loss, and cross-validate what it gains.

    Parameters
    ----------
    probabilities : ndarray, shape (rows, C)
        The model's, of the validation rows.
    labels : ndarray, shape (rows,)
        Their classes.
    balanced : bool
        Whether every class counts alike, whatever its number of rows; else every row does.
    seed : int
        Deals the rows into the folds.
    """
    logits = np.log(np.clip(probabilities, 1e-12, 1.0))
    classes = logits.shape[1]
    weights = np.ones(len(labels))
    if balanced:
        weights /= np.bincount(labels, minlength=classes)[labels]
        weights *= len(labels) / weights.sum()
    fold = np.random.default_rng(seed).permutation(np.arange(len(labels)) % FOLDS)
    gains = np.zeros(len(labels))
    for one in range(FOLDS):
        out = fold == one
        if out.any() and not out.all():
            shift = fitted_shift(logits[~out], labels[~out], weights[~out])
            before, after = (row_losses(z, labels[out]) for z in (logits[out], logits[out] + shift))
            gains[out] = weights[out] * (before - after)
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else np.inf
    return PriorCorrection(fitted_shift(logits, labels, weights), float(gains.mean()), error)


def fitted_shift(logits: Floats, labels: npt.NDArray[np.int64], weights: Floats) -> Floats:
    """Return the shift (C,) of lowest weighted loss, by Newton's method.

    A shift of 1 nat is taken to be as usual as one standard deviation: a class without rows keeps
    its place.
    """
    from scipy.special import softmax

    classes = logits.shape[1]
    wanted = np.bincount(labels, weights=weights, minlength=classes)
    shift = np.zeros(classes)
    for _ in range(STEPS):
        p = softmax(logits + shift, axis=1)
        slope = weights @ p - wanted + shift
        curvature = np.diag(weights @ p) - (p * weights[:, None]).T @ p + np.eye(classes)
        step = np.linalg.solve(curvature, slope)
        shift = shift - step / max(1.0, np.abs(step).max())  # at most 1 nat at a time
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(shift - shift.mean())


def row_losses(logits: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Return each row's negative log-likelihood, nats."""
    from scipy.special import softmax

    p = softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.clip(p, 1e-12, 1.0)))
