"""Going on learning within a run: REINFORCE, a step a round, from what the last decision earned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from llm.agent.contract import Decision, Observation
from llm.agent.regulator.features import settled
from llm.agent.regulator.policy import likelihood

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

RATE = 3e-5
MEMORY = 0.7  # of the mean reward that a decision is compared with


def earned(before: Observation, decision: Decision, after: Observation) -> float | None:
    """Return what a round earned, nats, as in the simulated federations.

    Parameters
    ----------
    before, after : Observation
        What was seen when the round was decided, and after it.
    decision : Decision
        Who trained, for how many steps.

    Returns
    -------
    float or None
        Fall of the best settled validation loss less what circuits and waiting are worth; None if
        no loss was known before.
    """
    losses = [loss for loss in (before.start_loss, *before.losses) if loss is not None]
    if not losses or len(after.losses) <= len(before.losses):
        return None
    course = settled(np.array([[*losses, after.losses[-1]]]))[0]
    fall = max(0.0, float(course[:-1].min() - course[-1]))
    priced = {
        view.client: view.spend(decision.steps.get(view.client, 0)) for view in before.clients
    }
    spend = sum(priced[client] for client in decision.participants if client in priced)
    busy = [
        view.busy_seconds
        for view in after.clients
        if view.client in decision.participants and view.rounds_since == 0
    ]
    plain = sum((view.seconds_per_step or 0.0) * after.plain_steps for view in after.clients)
    idle = sum(max(busy) - seconds for seconds in busy) if busy else 0.0
    paid = before.price * spend / before.plain_spend if before.plain_spend else 0.0
    return fall - paid - (before.idle_price * idle / plain if plain else 0.0)


class Learner:
    """Remembers the last decision's words and learns from what they earned.

    Parameters
    ----------
    model : LlamaForCausalLM
        The regulator; its weights change in place, in this run only.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        self.mean: float | None = None
        self.size = 0.0
        self._words: list[tuple[Tensor, Tensor, Tensor]] = []
        self._last: tuple[Observation, Decision] | None = None

    def said(self, ids: Tensor, words: Tensor, may_stop: Tensor) -> None:
        """Note what was read and said."""
        self._words.append((ids, words, may_stop))

    def remember(self, seen: Observation, decision: Decision) -> None:
        """Note the decision that the words came to."""
        self._last = (seen, decision)

    def learn(self, seen: Observation) -> None:
        """Take a step: words that earned more than the mean so far become likelier."""
        words, self._words = self._words, []
        if self._last is None or not words:
            return
        reward = earned(*self._last, seen)
        if reward is None:
            return
        if self.mean is None:  # nothing to compare the first with
            self.mean, self.size = reward, abs(reward)
            return
        surprise = reward - self.mean
        self.mean += (1 - MEMORY) * surprise
        self.size = MEMORY * self.size + (1 - MEMORY) * abs(surprise)
        weight = max(-2.0, min(2.0, surprise / self.size)) if self.size > 0 else 0.0
        with torch.enable_grad():
            said = torch.stack([likelihood(self.model, *one)[0].sum() for one in words]).sum()
            self.optimizer.zero_grad()
            (-weight * said).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
