"""Plain deciders in simulated federations: what the regulator has to beat there."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from training.regulator.oracle import hindsight
from training.regulator.rollouts import Bools, Decide, Floats, Places, in_order, may_stop
from training.regulator.simulator import Federations


def _worth_it(running: Federations, share: Floats) -> Bools:
    """Stop when the last round's fall of the loss was not worth its circuits."""
    if len(running.losses) < 2:
        return np.zeros(len(share), dtype=bool)
    return np.asarray(running.losses[-2] - running.losses[-1] < running.task.price * share)


def everybody(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
    """Plain federated learning that stops when a round does not pay."""
    levels = np.ones(running.task.rows.shape)
    return _worth_it(running, np.ones(len(levels))), levels


def half_at_random(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
    """Train a random half."""
    levels = (running.rng.random(running.task.rows.shape) < 0.5).astype(np.float64)
    levels[levels.sum(1) == 0, 0] = 1.0
    return _worth_it(running, np.full(len(levels), 0.5)), levels


def best_standing(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
    """Train the half of best standing per price at double steps, after everybody once."""
    if running.round == 1:
        return everybody(running, ids, order)
    standing, spend = running.known["standing"], running.spend(running.task.plain[:, None])
    value = np.nan_to_num(standing) + 1.0
    ranked = np.argsort(np.argsort(-value / spend, axis=1), axis=1)
    levels = np.where(ranked < max(1, standing.shape[1] // 2), 2.0, 0.0)
    return _worth_it(running, np.ones(len(levels))), in_order(levels, order)


def steady(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
    """Train the better half by merit, nobody who did harm, the best of them longer.

    Everybody trains once, then the first half in the order of reading, but none of standing below
    -0.3; those above 0.6 at double steps. It stops when the mean fall of the best loss over three
    rounds was not worth the next one's circuits. What the regulator first imitates: the best of
    the rules of this kind that were tried in simulation.
    """
    if running.round == 1:
        return everybody(running, ids, order)
    task, clients = running.task, running.task.rows.shape[1]
    known = np.where(task.blind[:, None], np.nan, running.known["standing"])
    standing = in_order(np.nan_to_num(known), order)
    first = np.arange(clients) < max(1, (clients + 1) // 2)
    chosen = (first & (standing > -0.3)) | (np.arange(clients) == 0)
    levels = np.where(chosen, np.where(standing > 0.6, 2.0, 1.0), 0.0)
    plain = in_order(running.spend(task.plain[:, None]), order)
    losses = np.stack(running.losses)
    back = min(3, len(losses) - 1)
    fell = (losses[:-back].min(0) - losses.min(0)) / back
    share = (plain * levels).sum(1) / plain.sum(1)
    return np.asarray(fell < task.price * share), levels


def foresight(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
    """Decide with hindsight, round by round: knows every model before it is ordered."""
    stop, levels = hindsight(running)
    return stop & may_stop(running).numpy(), in_order(levels, order)


RIVALS: dict[str, Decide] = {
    "everybody": everybody,
    "half at random": half_at_random,
    "best standing": best_standing,
    "steady half": steady,
    "hindsight": foresight,
}
