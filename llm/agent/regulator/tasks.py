"""Random families of federations: what is learned, who takes part, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
WIDTH, ROWS, OWN_ROWS, SERVER_ROWS = 4, 40, 20, 200


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


def _some(rng: np.random.Generator, shape: tuple[int, int], most: float) -> npt.NDArray[np.bool_]:
    """Mark a random share of clients, up to `most` of them, in every federation."""
    share = rng.uniform(0, most, (shape[0], 1))
    return np.asarray(rng.random(shape) < share)


def draw_task(rng: np.random.Generator, federations: int, clients: int) -> Task:
    """Draw a family of random federations.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    federations, clients : int
        S and K.
    """
    from llm.agent.regulator.simulator import HIDDEN, weight_count

    shape = (federations, clients)
    classes = int(rng.integers(2, 4))
    hidden = HIDDEN if rng.random() < 0.7 else 0
    bumps = int(rng.integers(1, 3))
    centres = rng.normal(0, 1, (federations, classes, bumps, WIDTH))
    spread = rng.uniform(0.5, 1.6, (federations, 1))
    alpha = np.exp(rng.uniform(np.log(0.2), np.log(8), federations))
    noise = np.where(_some(rng, shape, 0.5), rng.uniform(0.2, 0.5, shape), 0.0)
    mixes = np.stack([rng.dirichlet(np.full(classes, a), clients) for a in alpha])

    def rows(labels: npt.NDArray[np.int64]) -> Tensor:
        at = np.arange(federations).reshape(-1, *[1] * (labels.ndim - 1))
        bump = rng.integers(0, bumps, labels.shape)
        wide = spread.reshape(-1, *[1] * labels.ndim)
        made = centres[at, labels, bump] + wide * rng.normal(0, 1, (*labels.shape, WIDTH))
        return torch.as_tensor(np.clip(made / 2, -1.6, 1.6), dtype=torch.float32)

    def labels(count: int) -> npt.NDArray[np.int64]:
        cuts = mixes.cumsum(-1)[..., None, :]
        drawn = (rng.random((*shape, count, 1)) > cuts).sum(-1)
        return np.asarray(np.minimum(drawn, classes - 1))

    def wrong(true: npt.NDArray[np.int64]) -> Tensor:
        flips = rng.random(true.shape) < noise[..., None]
        other = (true + rng.integers(1, classes, true.shape)) % classes
        return torch.as_tensor(np.where(flips, other, true))

    y, own = labels(ROWS), labels(OWN_ROWS)
    server = rng.integers(0, classes, (federations, SERVER_ROWS))
    x, own_x, server_x = rows(y), rows(own), rows(server)
    weights = np.exp(rng.normal(0, rng.uniform(0, 0.9), shape))
    held = np.clip(np.round(ROWS * weights / weights.max(1, keepdims=True)), 4, ROWS)
    mask = torch.as_tensor(np.arange(ROWS) < held[..., None], dtype=torch.float32)
    full = rng.random((federations, 1)) < 0.5
    plain = rng.integers(2, 11, federations).astype(np.float64)
    count = weight_count(WIDTH, hidden, classes)
    scale = 0.3 if hidden else 0.05
    base = 0.15 + 0.25 * spread
    return Task(
        classes=classes,
        hidden=hidden,
        rate=float(np.exp(rng.uniform(np.log(0.006), np.log(0.07)))),
        most=40,
        start=torch.as_tensor(rng.normal(0, scale, (federations, count)), dtype=torch.float32),
        x=x,
        y=wrong(y),
        mask=mask,
        own_x=own_x,
        own_y=wrong(own),
        server_x=server_x,
        server_y=torch.as_tensor(server),
        rows=held,
        pace=np.where(
            _some(rng, shape, 0.5), rng.uniform(2, 8, shape), rng.uniform(0.7, 1.4, shape)
        )
        * (held / ROWS if rng.random() < 0.5 else 1.0),
        queue=np.where(_some(rng, shape, 0.4), rng.uniform(1, 30, shape), 0.0),
        prices=np.where(_some(rng, shape, 0.5), rng.uniform(2, 8, shape), 1.0),
        batch=np.where(full, held, 16.0),
        fixed=np.full(shape, float(OWN_ROWS)),
        drop=np.where(_some(rng, shape, 0.3), rng.uniform(0.1, 0.6, shape), 0.0),
        llm_loss=base + 0.8 * noise + np.abs(rng.normal(0, 0.06, shape)),
        plain=plain,
        rounds=rng.integers(4, 19, federations).astype(np.float64),
        price=np.exp(rng.uniform(np.log(0.0006), np.log(0.02), federations)),
        idle_price=np.where(
            rng.random(federations) < 0.2,
            0.0,
            np.exp(rng.uniform(np.log(0.0003), np.log(0.01), federations)),
        ),
    )
