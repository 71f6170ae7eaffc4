"""Random families of federations: what is learned, who takes part, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
WIDTH, ROWS, OWN_ROWS, SERVER_ROWS = 4, 40, 20, 200
BLIND = 0.1
"""Share of federations whose agent is shown no credit."""


@dataclass(frozen=True)
class Task:
    """S federations that share their number of clients and classes and the shape of the model.

    Attributes
    ----------
    classes, hidden : int
        Classes, and hidden units of the stand-in (0: softmax regression).
    rate : float
        Adam's step size.
    most : int
        Most steps of a client.
    start : Tensor, shape (S, P)
        First weights.
    x, y, mask : Tensor, shapes (S, K, n, d), (S, K, n), (S, K, n)
        Training rows.
    own_x, own_y : Tensor, shapes (S, K, m, d), (S, K, m)
        The clients' validation rows, noisy where the client is.
    server_x, server_y : Tensor, shapes (S, V, d), (S, V)
        The server's.
    rows, pace, queue, prices, batch, fixed, drop, llm_loss : ndarray, shape (S, K)
        Rows as weights, seconds a step, mean queue, price of a circuit, rows of a step, circuits
        besides steps, chance to drop out, the language model's loss.
    plain, rounds, price, idle_price : ndarray, shape (S,)
        Plain steps, most rounds, and what circuits and waiting are worth.
    blind : ndarray of bool, shape (S,)
        Whether the agent is shown no credit, as where evaluation costs circuits.
    """

    classes: int
    hidden: int
    rate: float
    most: int
    start: Tensor
    x: Tensor
    y: Tensor
    mask: Tensor
    own_x: Tensor
    own_y: Tensor
    server_x: Tensor
    server_y: Tensor
    rows: Floats
    pace: Floats
    queue: Floats
    prices: Floats
    batch: Floats
    fixed: Floats
    drop: Floats
    llm_loss: Floats
    plain: Floats
    rounds: Floats
    price: Floats
    idle_price: Floats
    blind: npt.NDArray[np.bool_]


def _some(rng: np.random.Generator, shape: tuple[int, int], most: float) -> npt.NDArray[np.bool_]:
    """Mark a random share of clients, up to `most` of them, in every federation."""
    share = rng.uniform(0, most, (shape[0], 1))
    return np.asarray(rng.random(shape) < share)


@dataclass(frozen=True)
class _Mixtures:
    """What is learned: a mixture of Gaussians a class, and how the sites' rows come from it."""

    classes: int
    centres: Floats
    spread: Floats
    shares: Floats
    noise: Floats

    def labels(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Draw true labels of every site, shape (S, K, count)."""
        cuts = self.shares.cumsum(-1)[..., None, :]
        drawn = (rng.random((*self.noise.shape, count, 1)) > cuts).sum(-1)
        return np.asarray(np.minimum(drawn, self.classes - 1))

    def rows(self, rng: np.random.Generator, labels: npt.NDArray[np.int64]) -> Tensor:
        """Draw a row for each label."""
        at = np.arange(len(labels)).reshape(-1, *[1] * (labels.ndim - 1))
        bump = rng.integers(0, self.centres.shape[2], labels.shape)
        wide = self.spread.reshape(-1, *[1] * labels.ndim)
        made = self.centres[at, labels, bump] + wide * rng.normal(0, 1, (*labels.shape, WIDTH))
        return torch.as_tensor(np.clip(made / 2, -1.6, 1.6), dtype=torch.float32)

    def observed(self, rng: np.random.Generator, true: npt.NDArray[np.int64]) -> Tensor:
        """Return labels as the sites hold them: some are wrong where a site is noisy."""
        flips = rng.random(true.shape) < self.noise[..., None]
        other = (true + rng.integers(1, self.classes, true.shape)) % self.classes
        return torch.as_tensor(np.where(flips, other, true))


def _mixtures(rng: np.random.Generator, shape: tuple[int, int]) -> _Mixtures:
    federations, clients = shape
    classes, bumps = int(rng.integers(2, 4)), int(rng.integers(1, 3))
    alpha = np.exp(rng.uniform(np.log(0.2), np.log(8), federations))
    return _Mixtures(
        classes=classes,
        centres=rng.normal(0, 1, (federations, classes, bumps, WIDTH)),
        spread=rng.uniform(0.5, 1.6, (federations, 1)),
        shares=np.stack([rng.dirichlet(np.full(classes, a), clients) for a in alpha]),
        noise=np.where(_some(rng, shape, 0.5), rng.uniform(0.2, 0.5, shape), 0.0),
    )


def _prices(rng: np.random.Generator, federations: int, low: float, high: float) -> Floats:
    """Draw what something is worth, nats: over two decades, or nothing."""
    drawn = np.exp(rng.uniform(np.log(low), np.log(high), federations))
    return np.where(rng.random(federations) < 0.1, 0.0, drawn)


def _costs(rng: np.random.Generator, held: Floats) -> dict[str, Floats]:
    """Draw what the sites' work takes: time, price, drop-outs."""
    shape = (len(held), held.shape[1])
    slow = _some(rng, shape, 0.5)
    pace = np.where(slow, rng.uniform(2, 8, shape), rng.uniform(0.7, 1.4, shape))
    full = rng.random((len(held), 1)) < 0.5
    return {
        "pace": pace * (held / ROWS if rng.random() < 0.5 else 1.0),
        "queue": np.where(_some(rng, shape, 0.4), rng.uniform(1, 30, shape), 0.0),
        "prices": np.where(_some(rng, shape, 0.5), rng.uniform(2, 8, shape), 1.0),
        "batch": np.where(full, held, 16.0),
        "fixed": np.full(shape, float(OWN_ROWS)),
        "drop": np.where(_some(rng, shape, 0.3), rng.uniform(0.1, 0.6, shape), 0.0),
    }


def draw_task(rng: np.random.Generator, federations: int, clients: int) -> Task:
    """Draw a family of random federations.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    federations, clients : int
        S and K.
    """
    shape = (federations, clients)
    hidden = HIDDEN if rng.random() < 0.7 else 0
    mixtures = _mixtures(rng, shape)
    y, own = mixtures.labels(rng, ROWS), mixtures.labels(rng, OWN_ROWS)
    server = rng.integers(0, mixtures.classes, (federations, SERVER_ROWS))
    weights = np.exp(rng.normal(0, rng.uniform(0, 0.9), shape))
    held = np.clip(np.round(ROWS * weights / weights.max(1, keepdims=True)), 4, ROWS)
    mask = torch.as_tensor(np.arange(ROWS) < held[..., None], dtype=torch.float32)
    start = rng.normal(
        0,
        0.3 if hidden else 0.05,
        (federations, weight_count(WIDTH, hidden, mixtures.classes)),
    )
    teachers = 0.15 + 0.25 * mixtures.spread + 0.8 * mixtures.noise
    return Task(
        classes=mixtures.classes,
        hidden=hidden,
        rate=float(np.exp(rng.uniform(np.log(0.006), np.log(0.07)))),
        most=40,
        start=torch.as_tensor(start, dtype=torch.float32),
        x=mixtures.rows(rng, y),
        y=mixtures.observed(rng, y),
        mask=mask,
        own_x=mixtures.rows(rng, own),
        own_y=mixtures.observed(rng, own),
        server_x=mixtures.rows(rng, server),
        server_y=torch.as_tensor(server),
        rows=held,
        **_costs(rng, held),
        llm_loss=teachers + np.abs(rng.normal(0, 0.06, shape)),
        plain=rng.integers(2, 11, federations).astype(np.float64),
        rounds=rng.integers(4, 19, federations).astype(np.float64),
        price=_prices(rng, federations, 0.0005, 0.05),
        idle_price=_prices(rng, federations, 0.0003, 0.02),
        blind=rng.random(federations) < BLIND,
    )


HIDDEN = 8


def weight_count(width: int, hidden: int, classes: int) -> int:
    """Return P, the stand-in's number of weights."""
    inner = hidden or width
    return (width * hidden + hidden if hidden else 0) + inner * classes + classes
