"""Cheap clients whose own model is good."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from core import Settings, selection_size
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.client_value import (
    circuit_cost,
    everybody,
    improvement,
    plain_steps,
    while_it_pays,
)


@dataclass(frozen=True)
class GreedyAgent:
    """Lowest loss per cost: cheap clients whose own model is good.

    In round 1 everybody trains. Then clients are ranked by L_Q, the validation loss of their own
    model, times what a plain round of theirs costs relative to the clients' mean; an unknown L_Q
    comes first, ties go to the lower index. The first ceil(`fraction` K) train the plain steps. It
    stops when the last round improved the best validation loss by less than `agent.price` says
    the chosen clients' circuits cost.
    """

    fraction: float
    name: str = "greedy"
    uses: ClassVar[tuple[str, ...]] = ("agent.fraction", "agent.price")
    may_stop: ClassVar[bool] = True
    sees_credit: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, settings: Settings) -> GreedyAgent:
        """Build the agent."""
        return cls(settings.agent.fraction)

    def decide(self, observation: Observation) -> Decision:
        """Rank the clients, take the first, or stop where they no longer pay."""
        if observation.round == 1:
            return everybody(observation)
        steps, clients = plain_steps(observation), observation.clients
        usual = sum(view.cost(steps) for view in clients) / len(clients)

        def rank(view: ClientView) -> tuple[float, int]:
            if view.loss is None:
                return -math.inf, view.client
            return view.loss * (view.cost(steps) / usual if usual > 0 else 1.0), view.client

        ranked = sorted(clients, key=rank)[: selection_size(len(clients), self.fraction)]
        chosen = sorted(ranked, key=lambda view: view.client)
        reason = f"lowest loss per cost: {len(chosen)} of {len(clients)}"
        decision = Decision.to_train({view.client: steps for view in chosen}, reason)
        cost = sum(circuit_cost(view, steps, observation) for view in ranked)
        return while_it_pays(decision, improvement(observation, 1), cost)


AGENT = GreedyAgent
