"""The agent: real observations in, decisions out; on request it goes on learning in the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core import derive_seed
from strategies.agents.contract import Attempt, ClientView, Decision, Observation
from strategies.agents.regulator.features import read, seen_of, steps_of
from strategies.agents.regulator.online import Learner
from strategies.agents.regulator.policy import Choice, draw
from strategies.agents.regulator.vocabulary import spell

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

GROUP = 12
"""Most clients of one text: it was trained on federations of 3 to 12."""


def groups(clients: int) -> list[range]:
    """Deal clients, by place, into as few groups of about the same size as texts can hold."""
    parts = -(-clients // GROUP)
    return [range(part, clients, parts) for part in range(parts)]


class RegulatorAgent:
    """Our trained language model decides; see `words` for what it reads and says.

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
        """Read the observation and say the likeliest words; online drawn ones, for learning.

        What is drawn depends on the run's seed and the round alone.
        """
        if self.learner is not None:
            self.learner.learn(observation)
        began, views = time.monotonic(), observation.clients
        chance = self._chance(observation.round)
        levels, attempts, stops = np.zeros(len(views)), [], []
        for places in groups(len(views)):
            part = observation.model_copy(update={"clients": tuple(views[i] for i in places)})
            read_ids, order = read(seen_of(part))
            ids = torch.as_tensor(read_ids)
            said, wish = self._say(ids, chance, may_stop=observation.round > 1)
            levels[np.asarray(places)[order[0]]] = said.levels[0]
            stops.append(wish)
            attempts.append(_attempt(ids, said, stop=wish, seconds=time.monotonic() - began))
        self.attempts = tuple(attempts)
        plain = np.array([observation.plain_steps], dtype=np.float64)
        given = steps_of(levels[None], plain, observation.max_steps)[0]
        steps = {view.client: int(m) for view, m in zip(views, given, strict=True) if m > 0}
        chosen = [view for view in views if view.client in steps]
        reason = _reason(observation, chosen, steps)
        stop = 2 * sum(stops) > len(stops)
        decision = Decision(participants=tuple(steps), steps=steps, stop=stop, reason=reason)
        if self.learner is not None:
            self.learner.remember(observation)
        return decision

    def _chance(self, number: int) -> torch.Generator | None:
        if self.learner is None:
            return None
        return torch.Generator().manual_seed(derive_seed(self.seed, "agent", number))

    def _say(
        self, ids: Tensor, chance: torch.Generator | None, *, may_stop: bool
    ) -> tuple[Choice, bool]:
        """Return who trains, and whether the model would rather stop."""
        free = torch.tensor([may_stop])
        said = draw(self.model, ids, free, chance)
        stop = bool(said.stop[0])
        if stop:  # who would train if the run must go on: `stop.min_rounds`, or other groups
            free = torch.tensor([False])
            said = draw(self.model, ids, free, chance)
        if self.learner is not None:
            self.learner.said(ids, said.words, free)
        return said, stop


def _attempt(ids: Tensor, said: Choice, *, stop: bool, seconds: float) -> Attempt:
    answer = spell(said.words[0].numpy())
    return Attempt(
        prompt=spell(ids[0].numpy()),
        answer=f"stop; else {answer}" if stop else answer,
        prompt_tokens=ids.shape[1],
        answer_tokens=said.words.shape[1],
        seconds=seconds,
    )


def _reason(seen: Observation, chosen: Sequence[ClientView], steps: dict[int, int]) -> str:
    """Say in numbers what the choice comes to; the model itself gives no reasons."""
    spend = sum(view.spend(steps[view.client]) for view in chosen)
    said = f"{len(chosen)} of {len(seen.clients)} train"
    if seen.plain_spend > 0:
        said += f" for {spend / seen.plain_spend:.0%} of a plain round's circuits"
    others = [view for view in seen.clients if view.client not in steps]
    means = [
        f"{name} {sum(known) / len(known):+.2f}"
        for name, group in (("theirs", chosen), ("the others'", others))
        if (known := [view.standing for view in group if view.standing is not None])
    ]
    return f"{said}; mean standing: {', '.join(means)}" if means else said
