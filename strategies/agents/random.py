"""A random share of clients, always the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core import Settings, derive_seed, selection_size
from strategies.decisions import Decision, Observation


@dataclass(frozen=True)
class RandomAgent:
    """A random share of clients with unchanged steps, from a generator of its own.

    Where noise comes from the system, so does the draw: every site knows `run.seed`, and sampling
    hides nothing from whom can repeat it.
    """

    fraction: float
    seed: int | None
    name: str = "random"
    uses: ClassVar[tuple[str, ...]] = ("agent.fraction",)
    may_stop: ClassVar[bool] = False
    fixed_steps: ClassVar[bool] = True
    samples: ClassVar[str] = "fixed-size without replacement"

    @property
    def repeats(self) -> bool:
        """Whether the same observation is decided in the same way again."""
        return self.seed is not None

    @classmethod
    def from_settings(cls, settings: Settings) -> RandomAgent:
        """Build the agent."""
        secret = settings.privacy.dp != "none" and not settings.privacy.seeded
        return cls(settings.agent.fraction, None if secret else settings.run.seed)

    def decide(self, observation: Observation) -> Decision:
        """Draw the round's participants; the draw depends on seed and round only."""
        known = None if self.seed is None else derive_seed(self.seed, "agent", observation.round)
        rng = np.random.default_rng(known)
        clients = observation.clients
        size = selection_size(len(clients), self.fraction)
        drawn = rng.choice(len(clients), size=size, replace=False)
        steps = {clients[i].client: clients[i].steps for i in sorted(drawn)}
        return Decision.to_train(steps, f"drawn at random: {size}")


AGENT = RandomAgent
