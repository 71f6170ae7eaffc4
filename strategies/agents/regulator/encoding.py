"""The regulator's language: an observation as a text of binned numbers, a decision in between.

A text is read from left to right: eight tokens on the run, then the model says ``go`` or ``stop``;
seven tokens on a client, then the model says ``skip`` or a multiple of the plain steps, and so on.
Clients come in the order of their merit so far, so that each is no better than those before it.
The numbers behind the tokens have one formula for real and for simulated federations.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.decisions.contract import Observation

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

# Nats around zero, as fine as a decision needs: a plain round costs some 0.005.
_SIGNED_HALF = (0.0005, 0.002, 0.006, 0.015, 0.04, 0.1, 0.3)
_SIGNED = (*(-edge for edge in reversed(_SIGNED_HALF)), *_SIGNED_HALF)
_OCTAVES = (-2.5, -1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75, 2.5)
_COUNTS = (1.5, 2.5, 3.5, 5.5, 8.5, 12.5, 18.5, 26.5)
_PRICES = (0.0002, 0.0007, 0.0014, 0.0028, 0.0055, 0.011, 0.022)
_ROUNDS = (0.5, 1.5, 2.5, 4.5)

RUN: dict[str, tuple[float, ...]] = {
    "round": _COUNTS,
    "left": _COUNTS,
    "loss": tuple(np.round(np.arange(0.1, 1.31, 0.06), 2)),
    "drop": _SIGNED,
    "drops": _SIGNED,
    "stale": _ROUNDS,
    "price": _PRICES,
    "idle": _PRICES,
}
"""Edges of the bins of the numbers on the run: round, rounds left, loss over that of chance, its
last drop and the mean of the last three, rounds since the best, prices of circuits and waiting."""

CLIENT: dict[str, tuple[float, ...]] = {
    "spend": _OCTAVES,
    "pace": _OCTAVES,
    "own": _SIGNED,
    "llm": _SIGNED,
    "credit": _SIGNED,
    "standing": (-2, -1, -0.6, -0.3, -0.1, 0.1, 0.3, 0.6, 1, 2),
    "since": _ROUNDS,
}
"""The same of the numbers on a client: cost of a plain round and its seconds a step in octaves
about the clients' mean, its loss against the global one and its LLM's against their mean, credit of
its last round, moving average of its credit, rounds since it trained."""

GO, STOP, SKIP = "go", "stop", "skip"
LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the plain steps that a participant may be given."""

VOCABULARY = (
    "pad",
    GO,
    STOP,
    SKIP,
    *(f"x{level:g}" for level in LEVELS),
    *(
        f"{name}{i}"
        for name, edges in (*RUN.items(), *CLIENT.items())
        for i in (*range(len(edges) + 1), "?")
    ),
)
"""All tokens; one a bin of each number, and ``?`` for one that is not known."""

GO_ID, STOP_ID, SKIP_ID = (VOCABULARY.index(token) for token in (GO, STOP, SKIP))
LEVEL_IDS = tuple(SKIP_ID + 1 + i for i in range(len(LEVELS)))

FAR = 12.0
"""Rounds beyond which one is like another: simulated runs are no longer than 18."""

COST = 0.6
"""How much cost counts in the order of merit; the best of 0, 0.3, 0.6 and 1 in simulation."""

SMOOTHING = 3
"""Rounds whose mean loss counts as what training has reached: one lucky round earns nothing."""


def binned(values: Floats, fields: dict[str, tuple[float, ...]]) -> Ids:
    """Return the token of each number.

    Parameters
    ----------
    values : ndarray, shape (..., F)
        One number a field; NaN is not known.
    fields : dict
        F fields: edges of their bins by name.

    Returns
    -------
    ndarray of int64, shape (..., F)
        Places in the vocabulary.
    """
    ids = np.empty(values.shape, dtype=np.int64)
    for place, (name, edges) in enumerate(fields.items()):
        column = values[..., place]
        bins = np.searchsorted(np.asarray(edges), column, side="right")
        bins = np.where(np.isnan(column), len(edges) + 1, bins)
        ids[..., place] = VOCABULARY.index(f"{name}0") + bins
    return ids


def text_ids(run: Floats, clients: Floats) -> Ids:
    """Return the ids of what the model reads, without its own tokens in between.

    Parameters
    ----------
    run : ndarray, shape (B, 8)
        Numbers on the run, in the order of `RUN`.
    clients : ndarray, shape (B, K, 7)
        Numbers on the clients, in the order of `CLIENT`.

    Returns
    -------
    ndarray of int64, shape (B, 8 + 7 K)
    """
    return np.concatenate([binned(run, RUN), binned(clients, CLIENT).reshape(len(run), -1)], axis=1)


def decode(ids: Ids) -> str:
    """Return a text in words, for the record."""
    return " ".join(VOCABULARY[int(i)] for i in ids)


@dataclass(frozen=True)
class FederationStates:
    """States of B federations of K clients each; NaN is not known.

    Attributes
    ----------
    round, left, classes, price, idle_price : ndarray, shape (B,)
        Round to be decided and rounds left, classes, and prices in nats.
    losses : ndarray, shape (B, T)
        Loss of the first parameters, then after each round; T at least 1, NaN where there is none.
    spend, pace, loss, llm_loss, credit, standing, since : ndarray, shape (B, K)
        Of each client: cost of a plain round, seconds a step, the losses, credit of its last
        round, moving average of its credit, rounds since it trained.
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


def states_of(observation: Observation) -> FederationStates:
    """Return a real federation's state, B = 1."""
    views = observation.clients
    chosen = np.array([[view.chosen for view in views]])

    def row(values: Sequence[float | None]) -> Floats:
        return np.array([[np.nan if value is None else value for value in values]], np.float64)

    def each(name: str) -> Floats:
        return row([getattr(view, name) for view in views])

    def one(name: str) -> Floats:
        return np.array([getattr(observation, name)], np.float64)

    pace = each("seconds_per_step")
    return FederationStates(
        **{k: one(k) for k in ("round", "classes", "price", "idle_price")},
        **{k: each(k) for k in ("loss", "llm_loss", "credit", "standing")},
        left=one("rounds_left"),
        losses=row([observation.start_loss, *observation.losses]),
        spend=row([view.cost(observation.plain_steps) or None for view in views]),
        pace=np.where(pace > 0, pace, np.nan),
        since=np.where(chosen > 0, each("rounds_since"), np.nan),
    )


def encode(states: FederationStates) -> tuple[Ids, Ids]:
    """Return what the model reads (B, 8 + 7 K), and which client comes when (B, K)."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing known are NaN
        run, clients, order = _run(states), _clients(states), merit(states)
    return text_ids(run, np.take_along_axis(clients, order[..., None], axis=1)), order


def merit(states: FederationStates) -> Ids:
    """Return the clients' places in order of merit, shape (B, K).

    By (1 + average credit) over what a plain round costs to the power of `COST`, an unknown average
    counting as 0; so those that did most harm come last.
    """
    value = 1.0 + np.where(np.isnan(states.standing), 0.0, states.standing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing known is NaN
        relative = states.spend / np.nanmean(states.spend, axis=1, keepdims=True)
    cost = np.where(np.isnan(relative), np.inf, relative) ** COST
    return np.argsort(-np.round(np.where(value > 0, value / cost, value), 12), 1, kind="stable")


def smoothed(losses: Floats) -> Floats:
    """Return the mean of each loss and of the two before it, where there are any.

    Parameters
    ----------
    losses : ndarray, shape (B, T)
        Of the first parameters, then after each round, nats.

    Returns
    -------
    ndarray, shape (B, T)
    """
    ends = range(1, losses.shape[1] + 1)
    return np.stack([losses[:, max(0, end - SMOOTHING) : end].mean(1) for end in ends], axis=1)


def steps_of(levels: Floats, plain: Floats, most: int) -> Ids:
    """Return multiples of the plain steps as whole steps from 1 to `most`; 0 stays 0."""
    wanted = np.floor(levels * plain[:, None] + 0.5)
    return np.where(levels > 0, np.clip(wanted, 1, most), 0).astype(np.int64)


def _run(states: FederationStates) -> Floats:
    """Return the numbers of `RUN`, shape (B, 8)."""
    losses = states.losses
    drops = losses[:, :-1] - losses[:, 1:]
    unknown = np.full(len(losses), np.nan)
    best = np.argmin(np.where(np.isnan(losses), np.inf, losses), axis=1)
    columns = [
        np.minimum(states.round, FAR),
        np.minimum(states.left, FAR),
        losses[:, -1] / np.log(states.classes),
        drops[:, -1] if drops.shape[1] else unknown,
        np.nanmean(drops[:, -3:], axis=1) if drops.shape[1] else unknown,
        (losses.shape[1] - 1 - best).astype(np.float64),
        states.price,
        states.idle_price,
    ]
    return np.stack(columns, axis=1)


def _clients(states: FederationStates) -> Floats:
    """Return the numbers of `CLIENT`, shape (B, K, 7)."""

    def octaves(values: Floats) -> Floats:
        return np.asarray(np.log2(values / np.nanmean(values, axis=1, keepdims=True)))

    columns = [
        octaves(states.spend),
        octaves(states.pace),
        states.loss - states.losses[:, -1:],
        states.llm_loss - np.nanmean(states.llm_loss, axis=1, keepdims=True),
        states.credit,
        states.standing,
        states.since,
    ]
    return np.stack(columns, axis=2)
