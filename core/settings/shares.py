"""How many clients a share of them is, and how many steps a client may be given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.settings.backends import family

if TYPE_CHECKING:
    from core.settings.schema import Settings

PAID_GROWTH = 2
"""Multiple of `train.steps` that an agent may give on a paid device without a budget."""


def selection_size(clients: int, fraction: float) -> int:
    """Return how many of `clients` a `fraction` keeps: rounded up, at least one, at most all."""
    # Rounding first keeps 0.7 * 10 = 7.000000000000001 from becoming eight clients.
    return min(clients, max(1, math.ceil(round(fraction * clients, 9))))


def most_steps(settings: Settings, backends: Iterable[str]) -> int:
    """Return the most steps that an agent may give a client in a round.

    It is `train.max_steps`. Where a client computes on IBM hardware, which costs money, and no
    budget holds the run, it is at most twice `train.steps`.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    backends : iterable of str
        Names of the clients' backends.
    """
    stop, most = settings.stop, settings.train.max_steps
    held = stop.circuits or stop.shots or stop.qpu_seconds or settings.hardware.budgeted
    if held or not any(family(name) == "ibm" for name in backends):
        return most
    return min(most, PAID_GROWTH * settings.train.steps)


def worst_steps(settings: Settings, backends: Iterable[str]) -> int:
    """Return the steps of a client's most expensive round: its first ones if no agent adds any."""
    agent = settings.agent
    if agent.kind in ("all", "random") or (agent.kind == "rule" and agent.rule == "fixed"):
        return settings.train.steps
    return most_steps(settings, backends)
