"""What the last round gave, and what the next would cost, read from one observation: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from strategies.agents import ClientView, Observation


def trained_last(seen: Observation, chosen_before: Mapping[int, int]) -> tuple[ClientView, ...]:
    """Return the clients that trained in the round before the observation's.

    Parameters
    ----------
    seen : Observation
        What is known now.
    chosen_before : mapping
        By client, the rounds it had trained in when the last observation was made. A client that
        was asked and failed has ``rounds_since`` 0 too, but did not train once more.
    """
    return tuple(
        view
        for view in seen.clients
        if view.rounds_since == 0 and view.chosen > chosen_before.get(view.client, 0)
    )


def benefit(view: ClientView) -> float | None:
    """Return what a client's last model was worth, nats; above 0 it helped.

    Its credit; where the server did not judge it, its gain; else by how much its own validation
    loss fell, which says what it learnt itself and not what the others have of it.
    """
    if view.credit is not None:
        return view.credit
    if view.gain is not None:
        return view.gain
    return None if view.trend is None else -view.trend


def benefits(views: Iterable[ClientView]) -> dict[int, float]:
    """Return the benefits that are known, by client."""
    found = {view.client: benefit(view) for view in views}
    return {k: value for k, value in found.items() if value is not None and math.isfinite(value)}


def improvement(seen: Observation, window: int) -> float | None:
    """Return by how much a round lowered the best validation loss: mean of the last rounds, nats.

    Parameters
    ----------
    seen : Observation
        What is known now.
    window : int
        Rounds looked back on; fewer where fewer are done.

    Returns
    -------
    float or None
        At least 0; None while there is nothing to compare with.
    """
    history = list(seen.losses)
    if seen.start_loss is not None:
        history.insert(0, seen.start_loss)
    back = min(window, len(history) - 1)
    if back < 1:
        return None
    return (min(history[:-back]) - min(history)) / back


def spend_worth(view: ClientView, steps: int, seen: Observation) -> float:
    """Return what a client's circuits in a round of so many steps are worth, nats."""
    return seen.price * view.spend(steps) / seen.plain_spend if seen.plain_spend > 0 else 0.0


def step_seconds(seen: Observation) -> dict[int, float]:
    """Return each client's seconds a step; who was not timed yet counts as the mean of the rest."""
    known = {v.client: v.seconds_per_step for v in seen.clients if v.seconds_per_step is not None}
    mean = sum(known.values()) / len(known) if known else 0.0
    return {view.client: known.get(view.client, mean) for view in seen.clients}


def wait_worth(seen: Observation) -> float:
    """Return what a second of one client's waiting is worth, nats."""
    work = seen.plain_steps * sum(step_seconds(seen).values())
    return seen.idle_price / work if work > 0 else 0.0
