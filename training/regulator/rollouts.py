"""Letting somebody decide whole federations, and what every decision earned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.agents.regulator.encoding import encode, steps_of
from strategies.agents.regulator.policy import draw, tokens_of
from training.regulator.simulator import Federations

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
Decide = Callable[[Federations, Tensor, Places], tuple[Bools, Floats]]
"""From federations, what is read of them and which client comes when, to whether to stop (B,) and
levels in the order of reading (B, K)."""


@dataclass(frozen=True)
class Steps:
    """N decisions of federations that were still running.

    Attributes
    ----------
    ids, tokens : Tensor of int64, shapes (N, L), (N, K + 1)
        What was read and what was decided.
    federation, round : ndarray of int64, shape (N,)
        Whose decision it was, and when, from 0.
    """

    ids: Tensor
    tokens: Tensor
    federation: npt.NDArray[np.int64]
    round: npt.NDArray[np.int64]


def in_place(ordered: Floats, order: Places) -> Floats:
    """Put values that stand in the order of reading back to their clients' places, (B, K)."""
    levels = np.empty_like(ordered)
    np.put_along_axis(levels, order, ordered, axis=1)
    return levels


def in_order(levels: Floats, order: Places) -> Floats:
    """Put clients' values in the order of reading, (B, K)."""
    return np.asarray(np.take_along_axis(levels, order, axis=1))


def may_stop(running: Federations) -> Tensor:
    """Nobody stops before a first round."""
    return torch.full((len(running.task.rows),), running.round > 1)


def play(running: Federations, decide: Decide) -> tuple[Steps, Floats]:
    """Run federations to their end.

    Parameters
    ----------
    running : Federations
        B federations at their first round.
    decide : callable
        Who decides.

    Returns
    -------
    tuple
        The decisions of those that were still running, and the rewards, nats, shape (T, B).
    """
    decisions: list[tuple[Tensor, Tensor, Places, Places]] = []
    rewards: list[Floats] = []
    while not running.done.all():
        read, order = encode(running.states())
        ids = torch.as_tensor(read)
        stop, ordered = decide(running, ids, order)
        live = np.flatnonzero(~running.done)
        tokens = torch.as_tensor(tokens_of(stop, ordered))
        levels = in_place(ordered, order)
        decisions.append((ids[live], tokens[live], live, np.full(len(live), len(rewards))))
        ended = running.stop(stop)
        task = running.task
        rewards.append(ended + running.step(steps_of(levels, task.plain, task.most)).reward)
    steps = Steps(
        torch.cat([ids for ids, _, _, _ in decisions]),
        torch.cat([tokens for _, tokens, _, _ in decisions]),
        np.concatenate([live for _, _, live, _ in decisions]),
        np.concatenate([when for _, _, _, when in decisions]),
    )
    return steps, np.stack(rewards)


def by_model(
    model: LlamaForCausalLM,
    generator: torch.Generator | None = None,
    likely: list[Tensor] | None = None,
) -> Decide:
    """Let the regulator decide: drawn from its tokens, or without a generator the likeliest.

    ``likely`` collects the log probability of every decision, in the order of `Steps`.
    """

    def decide(running: Federations, ids: Tensor, order: Places) -> tuple[Bools, Floats]:
        live = np.flatnonzero(~running.done)
        size, clients = running.task.rows.shape
        stop, levels = np.ones(size, dtype=bool), np.zeros((size, clients))
        choice = draw(model, ids[live], may_stop(running)[live], generator)
        stop[live], levels[live] = choice.stop, choice.levels
        if likely is not None:
            likely.append(choice.log_probability)
        return stop, levels

    return decide


def to_go(rewards: Floats) -> Floats:
    """Return what each round and those after it earned, shape (T, B)."""
    return np.asarray(np.cumsum(rewards[::-1], axis=0)[::-1])


def advantages(rewards: Floats, group: int) -> Floats:
    """Return what each round's future earned beyond the mean of its group (GRPO's baseline).

    Parameters
    ----------
    rewards : ndarray, shape (T, B)
        Rewards; federations of one group stand side by side and have begun alike.
    group : int
        Size of the groups, a divisor of B.

    Returns
    -------
    ndarray, shape (T, B)
        Divided by their standard deviation over the group.
    """
    future = to_go(rewards)
    grouped = future.reshape(len(future), -1, group)
    centred = grouped - grouped.mean(2, keepdims=True)
    # By each group's own spread: else cheap federations would drown in those with much to learn.
    size = np.maximum(centred.std(axis=(0, 2), keepdims=True), 1e-6)
    return np.asarray((centred / size).reshape(future.shape))
