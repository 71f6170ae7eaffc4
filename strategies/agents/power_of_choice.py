"""Power-of-choice: of some clients drawn by chance those that are furthest behind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core import Settings, derive_seed, selection_size
from strategies.decisions import ClientView, Decision, Observation


@dataclass(frozen=True)
class PowerOfChoiceAgent:
    """Power-of-choice (Cho, Wang and Joshi 2020, arXiv 2010.01243) in its cheap form, rpow-d.

    Of K clients d are drawn without replacement, with probabilities by their rows, and the
    m = ceil(`fraction` K) of them with the highest losses train. The losses are the last that each
    has reported, as in the paper's rpow-d: nobody computes anything in order to be drawn. A client
    without one comes first. The paper leaves d between m and K to the user; here it is half way,
    ceil((m + K) / 2).
    """

    fraction: float
    seed: int
    name: str = "power-of-choice"
    uses: ClassVar[tuple[str, ...]] = ("agent.fraction",)
    may_stop: ClassVar[bool] = False
    fixed_steps: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, settings: Settings) -> PowerOfChoiceAgent:
        """Build the agent."""
        return cls(settings.agent.fraction, settings.run.seed)

    def decide(self, observation: Observation) -> Decision:
        """Draw candidates and choose; the draw depends on seed and round only."""
        rng = np.random.default_rng(derive_seed(self.seed, "agent", observation.round))
        clients = observation.clients
        most = selection_size(len(clients), self.fraction)
        candidates = math.ceil((most + len(clients)) / 2)
        rows = np.array([max(1, view.rows) for view in clients], dtype=np.float64)
        drawn = rng.choice(len(clients), size=candidates, replace=False, p=rows / rows.sum())
        ranked = sorted((clients[i] for i in drawn), key=_behind)
        chosen = sorted(ranked[:most], key=lambda view: view.client)
        steps = {view.client: view.steps for view in chosen}
        reason = f"highest losses: {len(chosen)} of {candidates} drawn"
        return Decision.to_train(steps, reason)


def _behind(view: ClientView) -> tuple[float, int]:
    return -(math.inf if view.loss is None else view.loss), view.client


AGENT = PowerOfChoiceAgent
