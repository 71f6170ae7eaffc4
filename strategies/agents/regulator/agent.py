"""The agent: real observations in, decisions out; on request it goes on learning in the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core import derive_seed
from strategies.agents.regulator.encoding import decode, encode, smoothed, states_of, steps_of
from strategies.agents.regulator.policy import Choice, draw, likelihood
from strategies.decisions.contract import Attempt, ClientView, Decision, Observation

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

GROUP = 12
"""Most clients of one text: it was trained on federations of 3 to 12."""

RATE = 3e-5
MOMENTUM = 0.7
"""Weight of the past in the moving average of rewards that a decision is compared with."""


def groups(clients: int) -> list[range]:
    """Deal clients, by place, into as few groups of about the same size as texts can hold."""
    parts = -(-clients // GROUP)
    return [range(part, clients, parts) for part in range(parts)]


class RegulatorAgent:
    """Our trained language model decides; see `encoding` for what it reads and answers.

    Parameters
    ----------
    model : LlamaForCausalLM
        Trained weights.
    online : bool
        Whether it goes on learning from what its decisions earn.
    seed : int
        The run's seed.
    """

    def __init__(self, model: LlamaForCausalLM, *, online: bool = False, seed: int = 0) -> None:
        self.model = model
        self.attempts: tuple[Attempt, ...] = ()
        self.decided_by = "regulator"
        self.learner = Learner(model) if online else None
        self.seed = seed

    @property
    def name(self) -> str:
        """Return ``regulator``, and whether it learns."""
        return "regulator (online)" if self.learner else "regulator"

    def decide(self, observation: Observation) -> Decision:
        """Read the observation and take the likeliest tokens; online drawn ones, for learning.

        What is drawn depends on the run's seed and the round alone.
        """
        generator = None
        if self.learner is not None:
            self.learner.learn(observation)
            seed = derive_seed(self.seed, "agent", observation.round)
            generator = torch.Generator().manual_seed(seed)
        views, self.attempts = observation.clients, ()
        levels, stops = np.zeros((1, len(views))), []
        for places in groups(len(views)):
            part = observation.model_copy(update={"clients": tuple(views[i] for i in places)})
            choice, order, stop = self._choose(part, generator)
            levels[0, np.asarray(places)[order]] = choice.levels[0]
            stops.append(stop)
        plain = np.array([observation.plain_steps], dtype=np.float64)
        given = steps_of(levels, plain, observation.max_steps)[0]
        steps = {view.client: int(m) for view, m in zip(views, given, strict=True) if m > 0}
        if self.learner is not None:
            self.learner.finish(observation)
        decision = Decision.to_train(steps, _reason(observation, steps))
        return decision.model_copy(update={"stop": 2 * sum(stops) > len(stops)})

    def _choose(
        self, seen: Observation, generator: torch.Generator | None
    ) -> tuple[Choice, np.ndarray, bool]:
        """Return who of a group trains, its order of reading, and whether it would rather stop."""
        began = time.monotonic()
        read, order = encode(states_of(seen))
        ids, may_stop = torch.as_tensor(read), torch.tensor([seen.round > 1])
        choice = draw(self.model, ids, may_stop, generator)
        stop = bool(choice.stop[0])
        if stop:  # who would train if the run must go on: `stop.min_rounds`, or other groups
            may_stop = torch.tensor([False])
            choice = draw(self.model, ids, may_stop, generator)
        if self.learner is not None:
            self.learner.record(ids, choice.tokens, may_stop)
        answer = decode(choice.tokens[0].numpy())
        attempt = Attempt(
            prompt=decode(ids[0].numpy()),
            answer=f"stop; else {answer}" if stop else answer,
            prompt_tokens=ids.shape[1],
            answer_tokens=choice.tokens.shape[1],
            seconds=time.monotonic() - began,
        )
        self.attempts = (*self.attempts, attempt)
        return choice, order[0], stop


def _reason(seen: Observation, steps: dict[int, int]) -> str:
    """Describe the choice in numbers; the model itself gives no reasons."""
    chosen = [view for view in seen.clients if view.client in steps]
    others = [view for view in seen.clients if view.client not in steps]
    reason = f"{len(chosen)} of {len(seen.clients)} train"
    if seen.plain_spend > 0:
        cost = sum(view.cost(steps[view.client]) for view in chosen)
        reason += f" for {cost / seen.plain_spend:.0%} of a plain round's circuits"
    means = [*_mean_standing("theirs", chosen), *_mean_standing("the others'", others)]
    return f"{reason}; mean standing: {', '.join(means)}" if means else reason


def _mean_standing(name: str, views: Sequence[ClientView]) -> list[str]:
    known = [view.standing for view in views if view.standing is not None]
    return [f"{name} {sum(known) / len(known):+.2f}"] if known else []


# --- learning within a run ----------------------------------------------------------------


def earned(before: Observation, after: Observation) -> float | None:
    """Return what a round earned, nats, as in the simulated federations.

    Parameters
    ----------
    before, after : Observation
        What was seen when the round was decided, and after it: who came back, after how many steps.

    Returns
    -------
    float or None
        Fall of the best smoothed validation loss less what circuits and waiting cost; None if no
        loss was known before.
    """
    losses = [loss for loss in (before.start_loss, *before.losses) if loss is not None]
    if not losses or len(after.losses) <= len(before.losses):
        return None
    course = smoothed(np.array([[*losses, after.losses[-1]]]))[0]
    fall = max(0.0, float(course[:-1].min() - course[-1]))
    rounds = {view.client: view.chosen for view in before.clients}
    trained = [view for view in after.clients if view.chosen > rounds.get(view.client, 0)]
    cost = sum(view.cost(view.steps) for view in trained)
    longest = max((view.busy_seconds for view in trained), default=0.0)
    idle = sum(longest - view.busy_seconds for view in trained)
    paces = [v.seconds_per_step for v in after.clients if v.seconds_per_step is not None]
    # A client that was not timed yet counts as the mean of the others.
    plain = len(after.clients) * after.plain_steps * sum(paces) / max(1, len(paces))
    paid = before.price * cost / before.plain_spend if before.plain_spend else 0.0
    return fall - paid - (before.idle_price * idle / plain if plain else 0.0)


class Learner:
    """REINFORCE within a run: a step a round, from what the last decision earned.

    Parameters
    ----------
    model : LlamaForCausalLM
        The regulator; its weights change in place, in this run only.

    Attributes
    ----------
    last : Observation or None
        The observation of the last decision.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        self.mean: float | None = None
        self.size = 0.0
        self.last: Observation | None = None
        self._decided: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(self, ids: Tensor, tokens: Tensor, may_stop: Tensor) -> None:
        """Record what was read, and the tokens that decided."""
        self._decided.append((ids, tokens, may_stop))

    def finish(self, seen: Observation) -> None:
        """Note the observation on which the recorded tokens decided."""
        self.last = seen

    def learn(self, seen: Observation) -> None:
        """Take a step: tokens that earned more than the mean so far become likelier."""
        decided, self._decided = self._decided, []
        reward = earned(self.last, seen) if self.last is not None and decided else None
        if reward is None:
            return
        if self.mean is None:  # nothing to compare the first with
            self.mean, self.size = reward, abs(reward)
            return
        surprise = reward - self.mean
        self.mean += (1 - MOMENTUM) * surprise
        self.size = MOMENTUM * self.size + (1 - MOMENTUM) * abs(surprise)
        weight = max(-2.0, min(2.0, surprise / self.size)) if self.size > 0 else 0.0
        with torch.enable_grad():
            chosen = torch.stack([likelihood(self.model, *one).sum() for one in decided]).sum()
            self.optimizer.zero_grad()
            (-weight * chosen).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
