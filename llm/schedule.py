"""The learning-rate schedule of pre-training and fine-tuning."""

from __future__ import annotations

import math


def linear_decay(step: int, total: int, warm_up: float = 0.06) -> float:
    """Return the factor on the peak learning rate: a short linear rise, then a linear fall to 0.

    Parameters
    ----------
    step : int
        Number of steps already taken, 0 to total - 1.
    total : int
        Steps of the whole training.
    warm_up : float
        Share of the steps that rise.

    Returns
    -------
    float
        In (0, 1]; 1 at the end of the rise.
    """
    rising = max(1, math.ceil(total * warm_up))
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising + 1)
