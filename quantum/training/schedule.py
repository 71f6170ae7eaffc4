"""Learning-rate schedules; this module loads no heavy library."""

from __future__ import annotations

from collections.abc import Callable

from core import TrainSettings, UserError

Rate = Callable[[int], float]
"""Step of the round -> learning rate."""


def learning_rate(settings: TrainSettings, step_offset: int) -> Rate:
    """Build the learning-rate schedule of a round.

    ``inverse-time`` is theorem 6.4's ``eta_t = 2 / (mu (t + gamma))`` with
    ``gamma = max(8 L / mu, E)``. E is the most steps that a round may take, ``max_steps``, since
    the agent may change a round's steps; t counts this client's own steps of all rounds.
    ``plateau`` is constant within a round: the server says what is left of the rate.

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
    if settings.schedule != "inverse-time":
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
