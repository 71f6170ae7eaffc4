"""Local optimisers as functions of one flat parameter vector: Adam, descent, COBYLA and SPSA.

SPSA takes two loss values a step, whatever the number of angles (J. C. Spall, "Implementation of
the simultaneous perturbation algorithm for stochastic optimization", IEEE Trans. Aerosp. Electron.
Syst. 34 (1998) 817): at step t all angles are moved by ``c_t delta`` and ``-c_t delta``, delta
random signs, and the update is ``-a_t s delta`` with ``s = (L+ - L-) / (2 c_t)``;
``a_t = a / (A + t + 1)^0.602``, ``c_t = c / (t + 1)^0.101``.

Two things in our SPSA are not Spall's. The gain a is calibrated without a circuit of its own: a
slope of mean size moves every angle by ``learning_rate`` radians at t = 0, the mean taken over
the ``|s|`` of the round's steps so far. And only the angles are perturbed: the head acts
after the measurement, its gradient comes with the same circuits (the mean over the two perturbed
points), and Adam follows it.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core import BudgetError
from quantum.training.schedule import Rate, not_finite

Gradient = Callable[[Tensor, int], tuple[float, Tensor]]
"""(theta (D,), step) -> the step's loss and its gradient (D,)."""


@dataclass(frozen=True)
class AdamState:
    """First and second moments and number of steps taken."""

    first: Tensor
    second: Tensor
    steps: int

    @classmethod
    def zero(cls, theta: Tensor) -> AdamState:
        """Return the state before the first step."""
        return cls(torch.zeros_like(theta), torch.zeros_like(theta), 0)


def adam_step(
    theta: Tensor, gradient: Tensor, state: AdamState, rate: float
) -> tuple[Tensor, AdamState]:
    """One step of Adam (Kingma & Ba, arXiv 1412.6980), beta = (0.9, 0.999), eps = 1e-6.

    Many angles of a circuit have no effect where the others stand; their float32 gradient is
    rounding noise of about 1e-8, which the customary eps = 1e-8 would blow up to full steps.

    Parameters
    ----------
    theta, gradient : torch.Tensor, shape (D,)
        Parameters and gradient.
    state : AdamState
        Moments so far.
    rate : float
        Learning rate.

    Returns
    -------
    tuple of torch.Tensor and AdamState
        New parameters, new moments.
    """
    beta1, beta2, eps = 0.9, 0.999, 1e-6
    steps = state.steps + 1
    first = beta1 * state.first + (1 - beta1) * gradient
    second = beta2 * state.second + (1 - beta2) * gradient.square()
    denominator = (second / (1 - beta2**steps)).sqrt() + eps
    moved = theta - (rate / (1 - beta1**steps)) * first / denominator
    return moved, AdamState(first, second, steps)


def run_adam(
    gradient: Gradient, start: Tensor, steps: int, rate: Rate
) -> tuple[Tensor, list[float]]:
    """Minimise by Adam.

    Parameters
    ----------
    gradient : callable (theta, step) -> (float, tensor of shape (D,))
        Loss and gradient of a step (its mini-batch may depend on the step).
    start : torch.Tensor, shape (D,)
        Where to start.
    steps : int
        Number of steps.
    rate : callable step -> float
        Learning rate of steps 0 ... steps - 1.

    Returns
    -------
    tuple of torch.Tensor and list of float
        Last parameters; each step's loss before its update. Fewer than `steps` where a device's
        budget ended.

    Raises
    ------
    UserError
        If a loss or gradient is not finite, or a budget does not pay for the first step.
    """
    state = AdamState.zero(start)

    def move(theta: Tensor, slope: Tensor, step: int) -> Tensor:
        nonlocal state
        theta, state = adam_step(theta, slope, state, rate(step))
        return theta

    return _descend(gradient, start, steps, move)


def run_descent(
    gradient: Gradient, start: Tensor, steps: int, rate: Rate
) -> tuple[Tensor, list[float]]:
    """Minimise by plain gradient descent, ``theta - rate gradient``; else as `run_adam`."""
    return _descend(gradient, start, steps, lambda theta, slope, t: theta - rate(t) * slope)


def _descend(
    gradient: Gradient,
    start: Tensor,
    steps: int,
    move: Callable[[Tensor, Tensor, int], Tensor],
) -> tuple[Tensor, list[float]]:
    """Move by gradients; return the last parameters, and each step's loss before its update."""
    theta, losses = start.detach(), list[float]()
    for step in range(steps):
        try:
            value, slope = gradient(theta, step)
        except BudgetError:
            if not losses:
                raise
            break  # the steps that were paid count
        theta = move(theta, slope, step)
        losses.append(value)
        if not (math.isfinite(value) and bool(torch.isfinite(theta).all())):
            raise not_finite(value, step)
    return theta, losses


def run_cobyla(
    objective: Callable[[np.ndarray], float], start: np.ndarray, steps: int, radius: float
) -> tuple[np.ndarray, list[float], float]:
    """Minimise by COBYLA, the published code's optimiser, without gradients.

    Parameters
    ----------
    objective : callable (D,) -> float
        The loss.
    start : numpy.ndarray, shape (D,)
        Where to start.
    steps : int
        How many points are tried at most after the start, whose value is computed first to
        compare with: ``steps + 1`` evaluations. scipy by itself would insist on D + 2.
    radius : float
        First trust radius (``rhobeg``).

    Returns
    -------
    tuple of numpy.ndarray, list of float and float
        Best parameters seen, shape (D,), the start if nothing was better; the loss of each point
        tried; the loss of the start.

    Raises
    ------
    UserError
        If a loss is not finite.
    """
    from scipy.optimize import minimize

    losses: list[float] = []
    best = np.array(start, dtype=np.float64)

    def counted(theta: np.ndarray) -> float:
        nonlocal best
        if len(losses) > steps:
            raise _BudgetSpentError
        try:
            value = objective(theta)
        except BudgetError:
            if len(losses) < 2:
                raise
            raise _BudgetSpentError from None
        if not math.isfinite(value):
            raise not_finite(value, len(losses))
        if not losses or value < min(losses):
            best = np.array(theta, dtype=np.float64)
        losses.append(value)
        return value

    options = {"maxiter": max(steps + 1, len(start) + 2), "rhobeg": radius}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns whenever the budget ends the search
        with contextlib.suppress(_BudgetSpentError):
            minimize(counted, best, method="COBYLA", options=options)
    return best, losses[1:], losses[0]


class _BudgetSpentError(Exception):
    """The budget of evaluations is used up."""


ALPHA, GAMMA = 0.602, 0.101  # Spall's exponents of the gain and of the perturbation
Measure = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(angles (K, P), head (H,), step) -> losses (K,), mean gradient to the head (H,)."""


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
    measure : Measure
        Losses of several points on one step's rows, in one job.
    start : numpy.ndarray, shape (D,)
        Where to start: P angles, then the head's H parameters.
    angles, steps : int
        P, and the number of steps.
    gains, step_offset : Gains, int
        The gain sequences, and the steps of earlier rounds: they go on from there.
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
    for t in range(step_offset, step_offset + steps):
        signs = rng.choice(np.array([-1.0, 1.0]), size=angles)
        points = theta[:angles] + np.stack([signs, -signs]) * gains.spread(t)
        try:
            (up, down), gradient = measure(points, theta[angles:], t - step_offset)
        except BudgetError:
            if not losses:
                raise
            break  # the steps that were paid count
        losses.append(float(up + down) / 2)
        if not (math.isfinite(losses[-1]) and np.isfinite(gradient).all()):
            raise not_finite(losses[-1], t - step_offset)
        slope = float(up - down) / (2 * gains.spread(t))
        slopes.append(abs(slope))
        scale = float(np.mean(slopes))
        unit = slope / scale if scale > 0 else 0.0  # a flat loss moves nothing
        theta[:angles] -= gains.size(t) * unit * signs
        tail, slope_of_tail = (torch.tensor(each) for each in (theta[angles:], gradient))
        moved, readout = adam_step(tail, slope_of_tail, readout, gains.size(t))
        theta[angles:] = moved.numpy()
    return theta, losses
