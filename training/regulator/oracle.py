"""Whom to train if one knew what would come back: what the regulator first imitates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.agents.regulator.encoding import steps_of
from training.regulator.simulator import Federations

Floats = npt.NDArray[np.float64]
LEVELS = (0.5, 1.0, 2.0, 4.0)


def hindsight(running: Federations) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return the best round for each federation, all models known before they are ordered.

    For each number of steps a set of clients is grown, the one that adds most to the round's value
    first: fall of the loss less what circuits and waiting are worth. The oracle stops where no
    such round is worth its price.

    Parameters
    ----------
    running : Federations
        B federations; they stay as they are.

    Returns
    -------
    tuple of ndarray
        Whether to stop, shape (B,), and levels, shape (B, K).
    """
    size, clients = running.task.rows.shape
    best = np.full(size, -np.inf)
    levels = np.zeros((size, clients))
    for level in LEVELS:
        steps = steps_of(np.full((size, clients), level), running.task.plain, running.task.most)
        value, chosen = _grow(running, steps)
        better = value > best
        best = np.where(better, value, best)
        levels = np.where(better[:, None], chosen * level, levels)
    return best < 0, levels


def _grow(
    running: Federations, steps: npt.NDArray[np.int64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    task = running.task
    size, clients = steps.shape
    models = running.train_clients(steps)
    weights = torch.as_tensor(task.rows * (1 - task.drop), dtype=torch.float32).unsqueeze(-1)
    paid = running.spend(steps.astype(np.float64)) / running.spend(task.plain[:, None]).sum(
        1, keepdims=True
    )
    busy = steps * task.pace + task.queue
    plain = (task.plain[:, None] * task.pace + task.queue).sum(1)
    now = running.losses[-1]
    chosen = np.zeros((size, clients), dtype=bool)
    value = np.full(size, -np.inf)
    summed: Tensor = torch.zeros(size, 1, models.shape[-1])
    held: Tensor = torch.zeros(size, 1, 1)
    for _ in range(clients):
        loss = running.evaluate((summed + weights * models) / (held + weights))
        longest = np.maximum((chosen * busy).max(1, keepdims=True), busy)
        count, work = chosen.sum(1, keepdims=True) + 1, (chosen * busy).sum(1, keepdims=True) + busy
        idle = (longest * count - work) / plain[:, None]
        cost = task.price[:, None] * ((chosen * paid).sum(1, keepdims=True) + paid)
        gains = now[:, None] - loss - cost - task.idle_price[:, None] * idle
        gains = np.where(chosen, -np.inf, gains)
        at = gains.argmax(1)
        better = gains[np.arange(size), at] > value
        if not better.any():
            break
        value = np.where(better, gains[np.arange(size), at], value)
        added = np.zeros_like(chosen)
        added[np.arange(size), at] = better
        chosen |= added
        pick = torch.as_tensor(added, dtype=torch.float32).unsqueeze(-1) * weights
        summed = summed + (pick * models).sum(1, keepdim=True)
        held = held + pick.sum(1, keepdim=True)
    return value, chosen
