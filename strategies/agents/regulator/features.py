"""What the regulator reads, as numbers: one formula for real and for simulated federations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.agents.contract import ClientView, Observation
from strategies.agents.regulator.vocabulary import text_ids

Floats = npt.NDArray[np.float64]
Numbers = tuple[Floats, Floats]

FAR = 12.0
"""Rounds beyond which one is like another: simulated runs are no longer than 18."""


COST = 0.6
"""How much cost counts in the order of merit; the best of 0, 0.3, 0.6 and 1 in simulation."""

SETTLED = 3
"""Rounds whose mean loss is what training has come to: a curve that jumps earns nothing by it."""


@dataclass(frozen=True)
class Seen:
    """States of B federations of K clients each; NaN is not known.

    Attributes
    ----------
    round, left, classes, price, idle_price : ndarray, shape (B,)
        Round to be decided and rounds left, classes, and prices in nats.
    losses : ndarray, shape (B, T)
        Loss of the first parameters, then after each round; T at least 1, NaN where there is none.
    spend, pace, loss, llm_loss, credit, standing, since : ndarray, shape (B, K)
        Of each client: spend of a plain round, seconds a step, the losses, credit of its last
        round, mean standing, rounds since it trained.
    """

    round: Floats
    left: Floats
    classes: Floats
    price: Floats
    idle_price: Floats
    losses: Floats
    spend: Floats
    pace: Floats
    loss: Floats
    llm_loss: Floats
    credit: Floats
    standing: Floats
    since: Floats


def numbers(seen: Seen) -> Numbers:
    """Return the numbers behind the words: of the run (B, 8) and of the clients (B, K, 7)."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing known are NaN
        return _run(seen), _clients(seen)


def settled(losses: Floats) -> Floats:
    """Return the mean of each loss and of the two before it, where there are any.

    Parameters
    ----------
    losses : ndarray, shape (B, T)
        Of the first parameters, then after each round, nats.

    Returns
    -------
    ndarray, shape (B, T)
    """
    return np.stack(
        [losses[:, max(0, t + 1 - SETTLED) : t + 1].mean(1) for t in range(losses.shape[1])], axis=1
    )


def merit(seen: Seen) -> npt.NDArray[np.int64]:
    """Return the clients' places in order of merit, shape (B, K).

    By (1 + standing) over what a plain round costs to the power of `COST`, an unknown standing
    counting as 0; so those that did most harm come last.
    """
    worth = 1.0 + np.where(np.isnan(seen.standing), 0.0, seen.standing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing known is NaN
        relative = seen.spend / np.nanmean(seen.spend, axis=1, keepdims=True)
    cost = np.where(np.isnan(relative), np.inf, relative) ** COST
    return np.argsort(-np.round(np.where(worth > 0, worth / cost, worth), 12), 1, kind="stable")


def read(seen: Seen) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return what the model reads (B, 8 + 7 K), and which client comes when (B, K)."""
    run, clients = numbers(seen)
    order = merit(seen)
    return text_ids(run, np.take_along_axis(clients, order[..., None], axis=1)), order


def _run(seen: Seen) -> Floats:
    losses = seen.losses
    known = losses[:, -1]
    drops = losses[:, :-1] - losses[:, 1:]
    none = np.full(len(losses), np.nan)
    best = np.argmin(np.where(np.isnan(losses), np.inf, losses), axis=1)
    return np.stack(
        [
            np.minimum(seen.round, FAR),
            np.minimum(seen.left, FAR),
            known / np.log(seen.classes),
            drops[:, -1] if drops.shape[1] else none,
            np.nanmean(drops[:, -3:], axis=1) if drops.shape[1] else none,
            (losses.shape[1] - 1 - best).astype(np.float64),
            seen.price,
            seen.idle_price,
        ],
        axis=1,
    )


def _clients(seen: Seen) -> Floats:
    now = seen.losses[:, -1:]

    def octaves(values: Floats) -> Floats:
        return np.asarray(np.log2(values / np.nanmean(values, axis=1, keepdims=True)))

    return np.stack(
        [
            octaves(seen.spend),
            octaves(seen.pace),
            seen.loss - now,
            seen.llm_loss - np.nanmean(seen.llm_loss, axis=1, keepdims=True),
            seen.credit,
            seen.standing,
            seen.since,
        ],
        axis=2,
    )


def seen_of(observation: Observation) -> Seen:
    """Return a real federation's state, B = 1."""
    views = observation.clients

    def one(value: float | None) -> Floats:
        return np.array([np.nan if value is None else value], dtype=np.float64)

    def each(pick: str) -> Floats:
        values = [getattr(view, pick) for view in views]
        return np.array([[np.nan if v is None else v for v in values]], dtype=np.float64)

    start = np.nan if observation.start_loss is None else observation.start_loss
    plain_spends = [[view.spend(observation.plain_steps) or np.nan for view in views]]
    pace = each("seconds_per_step")
    return Seen(
        round=one(observation.round),
        left=one(observation.rounds_left),
        classes=one(observation.classes),
        price=one(observation.price),
        idle_price=one(observation.idle_price),
        losses=np.array([[start, *observation.losses]], dtype=np.float64),
        spend=np.array(plain_spends, dtype=np.float64),
        pace=np.where(pace > 0, pace, np.nan),
        loss=each("loss"),
        llm_loss=each("llm_loss"),
        credit=each("credit"),
        standing=each("standing"),
        since=np.array([[_since(view) for view in views]], dtype=np.float64),
    )


def _since(view: ClientView) -> float:
    return float(view.rounds_since) if view.chosen else np.nan


def steps_of(levels: Floats, plain: Floats, most: int) -> npt.NDArray[np.int64]:
    """Return multiples of the plain steps as whole steps from 1 to `most`; 0 stays 0."""
    wanted = np.floor(levels * plain[:, None] + 0.5)
    return np.where(levels > 0, np.clip(wanted, 1, most), 0).astype(np.int64)
