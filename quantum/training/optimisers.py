"""Local optimisers as functions of one flat parameter vector."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from core import BudgetError, TrainSettings, UserError

Rate = Callable[[int], float]
Gradient = Callable[[torch.Tensor, int], tuple[float, torch.Tensor]]
"""(theta (D,), step) -> the step's loss and its gradient (D,)."""


@dataclass(frozen=True)
class AdamState:
    """First and second moments and number of steps taken."""

    first: torch.Tensor
    second: torch.Tensor
    steps: int

    @classmethod
    def zero(cls, theta: torch.Tensor) -> AdamState:
        """Return the state before the first step."""
        return cls(torch.zeros_like(theta), torch.zeros_like(theta), 0)


def adam_step(
    theta: torch.Tensor, gradient: torch.Tensor, state: AdamState, rate: float
) -> tuple[torch.Tensor, AdamState]:
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
    gradient: Gradient, start: torch.Tensor, steps: int, rate: Rate
) -> tuple[torch.Tensor, list[float]]:
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
    theta, state = start.detach(), AdamState.zero(start)
    losses: list[float] = []
    for step in range(steps):
        try:
            value, slope = gradient(theta, step)
        except BudgetError:
            if not losses:
                raise
            break  # the steps that were paid count
        theta, state = adam_step(theta, slope, state, rate(step))
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


def learning_rate(settings: TrainSettings, step_offset: int) -> Rate:
    """Build the learning-rate schedule of a round.

    ``inverse-time`` is theorem 6.4's ``eta_t = 2 / (mu (t + gamma))`` with
    ``gamma = max(8 L / mu, E)``. E is the most steps that a round may take, ``max_steps``, since
    the agent may change a round's steps; t counts this client's own steps of all rounds.

    Parameters
    ----------
    settings : TrainSettings
        The `train` section.
    step_offset : int
        Steps that this client took in earlier rounds.

    Returns
    -------
    callable step -> float
        Learning rate of the round's steps 0, 1, ...
    """
    if settings.schedule == "constant":
        return lambda step: settings.learning_rate
    mu, smoothness, period = settings.mu, settings.smoothness, settings.max_steps
    return lambda step: inverse_time(step_offset + step, mu, smoothness, period)


def inverse_time(t: int, mu: float, smoothness: float, period: int) -> float:
    """Theorem 6.4's learning rate at step t; ``period`` is E, the most steps of a round."""
    gamma = max(8.0 * smoothness / mu, float(period))
    return 2.0 / (mu * (t + gamma))


def not_finite(loss: float, step: int) -> UserError:
    """Build the error of a training that left the finite numbers."""
    return UserError(
        f"the quantum model's loss is {loss} at step {step} (its parameters would be lost)",
        "finite numbers",
        "lower train.learning_rate, or look for extreme class weights or soft labels",
    )
