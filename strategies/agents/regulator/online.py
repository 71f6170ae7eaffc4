"""Going on learning within a run: REINFORCE, a step a round, from what the last decision earned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from strategies.agents.contract import Observation
from strategies.agents.regulator.features import settled
from strategies.agents.regulator.policy import likelihood

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

RATE = 3e-5
MEMORY = 0.7  # of the mean reward that a decision is compared with


def earned(before: Observation, after: Observation) -> float | None:
    """Return what a round earned, nats, as in the simulated federations.

    Parameters
    ----------
    before, after : Observation
        What was seen when the round was decided, and after it: who came back, after how many steps.

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
    rounds = {view.client: view.chosen for view in before.clients}
    trained = [view for view in after.clients if view.chosen > rounds.get(view.client, 0)]
    spend = sum(view.spend(view.steps) for view in trained)
    longest = max((view.busy_seconds for view in trained), default=0.0)
    idle = sum(longest - view.busy_seconds for view in trained)
    paces = [v.seconds_per_step for v in after.clients if v.seconds_per_step is not None]
    # Who was not timed yet counts as the mean of the rest.
    plain = len(after.clients) * after.plain_steps * sum(paces) / max(1, len(paces))
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
        self._last: Observation | None = None

    def said(self, ids: Tensor, words: Tensor, may_stop: Tensor) -> None:
        """Note what was read, and the words that were acted on."""
        self._words.append((ids, words, may_stop))

    def remember(self, seen: Observation) -> None:
        """Note what was seen when the words were said."""
        self._last = seen

    def learn(self, seen: Observation) -> None:
        """Take a step: words that earned more than the mean so far become likelier."""
        words, self._words = self._words, []
        if self._last is None or not words:
            return
        reward = earned(self._last, seen)
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
            said = torch.stack([likelihood(self.model, *one).sum() for one in words]).sum()
            self.optimizer.zero_grad()
            (-weight * said).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
