"""Plain quantum federated learning: everybody trains, always the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core import Settings
from strategies.decisions import Decision, Observation


@dataclass(frozen=True)
class AllAgent:
    """Plain quantum federated learning: everybody trains, always the same steps."""

    name: str = "all"
    may_stop: ClassVar[bool] = False
    leaves_out: ClassVar[bool] = False
    fixed_steps: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, settings: Settings) -> AllAgent:
        """Build the agent."""
        return cls()

    def decide(self, observation: Observation) -> Decision:
        """Choose every client with its unchanged steps."""
        steps = {view.client: view.steps for view in observation.clients}
        return Decision.to_train(steps, "everybody trains")


AGENT = AllAgent
