"""SPSA: two loss values a step, whatever the number of angles.

J. C. Spall, "Implementation of the simultaneous perturbation algorithm for stochastic
optimization", IEEE Trans. Aerosp. Electron. Syst. 34 (1998) 817: at step t all angles are moved by
``c_t delta`` and ``-c_t delta``, delta random signs, and the update is
``-a_t s delta`` with ``s = (L+ - L-) / (2 c_t)``; ``a_t = a / (A + t + 1)^0.602``,
``c_t = c / (t + 1)^0.101``.

Two things are ours. The gain a is calibrated without a circuit of its own: it is the one that makes
a slope of mean size move every angle by ``learning_rate`` radians at t = 0, the mean taken over
the ``|s|`` of the round's steps so far. And only the angles are perturbed: scale and bias act
after the measurement, their gradient comes with the same circuits (its mean over the two perturbed
points), and Adam follows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from core import BudgetError
from quantum.training.optimisers import AdamState, adam_step, not_finite

Measure = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(angles (K, P), read-out (2 R,), step) -> losses (K,), mean gradient to the read-out (2 R,)."""

ALPHA, GAMMA = 0.602, 0.101  # Spall's exponents of the gain and of the perturbation


@dataclass(frozen=True)
class Gains:
    """SPSA's gain sequences.

    Attributes
    ----------
    move : float
        First move of an angle, radians.
    perturbation : float
        First perturbation c, radians.
    stability : float
        A >= 0: steps over which the gain hardly falls.
    """

    move: float
    perturbation: float
    stability: float

    def size(self, t: int) -> float:
        """Move of an angle at step t for a slope of mean size, radians."""
        return float(self.move * ((self.stability + 1) / (self.stability + t + 1)) ** ALPHA)

    def spread(self, t: int) -> float:
        """Perturbation c_t, radians."""
        return float(self.perturbation / (t + 1) ** GAMMA)


def run_spsa(
    measure: Measure,
    start: np.ndarray,
    angles: int,
    steps: int,
    gains: Gains,
    step_offset: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[float]]:
    """Minimise by SPSA.

    Parameters
    ----------
    measure : callable
        Losses of several points on one step's rows, in one job; see `Measure`.
    start : numpy.ndarray, shape (D,)
        Where to start: P angles, then the read-out's 2 R parameters.
    angles : int
        P.
    steps : int
        Number of steps.
    gains : Gains
        The gain sequences.
    step_offset : int
        Steps of earlier rounds: the sequences go on from there.
    rng : numpy.random.Generator
        Draws the signs.

    Returns
    -------
    tuple of numpy.ndarray and list of float
        Last parameters; each step's loss, the mean of its two values. Fewer than `steps` where a
        device's budget ended.

    Raises
    ------
    UserError
        If a loss is not finite, or a budget does not pay for the first step.
    """
    theta = np.array(start, dtype=np.float64)
    readout = AdamState.zero(torch.zeros(len(theta) - angles, dtype=torch.float64))
    losses: list[float] = []
    slopes: list[float] = []
    for step in range(steps):
        t = step_offset + step
        signs = rng.choice(np.array([-1.0, 1.0]), size=angles)
        try:
            up, down, gradient = _measured(measure, theta, gains.spread(t) * signs, step)
        except BudgetError:
            if not losses:
                raise
            break  # the steps that were paid count
        losses.append((up + down) / 2)
        slope = (up - down) / (2 * gains.spread(t))
        slopes.append(abs(slope))
        theta[:angles] -= gains.size(t) * _unit(slope, slopes) * signs
        theta[angles:], readout = _followed(theta[angles:], gradient, readout, gains.size(t))
    return theta, losses


def _measured(
    measure: Measure, theta: np.ndarray, shift: np.ndarray, step: int
) -> tuple[float, float, np.ndarray]:
    """Measure the losses at both perturbed points, and the read-out's mean gradient (2 R,)."""
    center, readout = theta[: len(shift)], theta[len(shift) :]
    (up, down), gradient = measure(np.stack([center + shift, center - shift]), readout, step)
    mean = float(up + down) / 2
    if not (math.isfinite(mean) and np.isfinite(gradient).all()):
        raise not_finite(mean, step)
    return float(up), float(down), gradient


def _unit(slope: float, slopes: Sequence[float]) -> float:
    """Divide a slope by the mean size of those seen; a flat loss moves nothing."""
    scale = float(np.mean(slopes))
    return slope / scale if scale > 0 else 0.0


def _followed(
    readout: np.ndarray, gradient: np.ndarray, state: AdamState, rate: float
) -> tuple[np.ndarray, AdamState]:
    """Let Adam follow the read-out's gradient by one step; float64, shape (2 R,)."""
    given = [torch.from_numpy(np.array(each, dtype=np.float64)) for each in (readout, gradient)]
    moved, state = adam_step(given[0], given[1], state, rate)
    return moved.numpy(), state
