"""The trained SmolLM2 as an agent of a run, where its adapter is at hand.

``--set agent.kind=training.smollm2.agent:SmolLM2Agent --set agent.options=adapter=FILE``
"""

from __future__ import annotations

from pathlib import Path

from strategies.agents.regulator.agent import RegulatorAgent
from strategies.decisions import Attempt, Decision, Observation
from training.smollm2.model import load, restore, smollm2_folder


class SmolLM2Agent:
    """Reads what the regulator reads and says its words; see `training.smollm2.model`.

    Parameters
    ----------
    adapter : str
        File that ``python -m training.smollm2.train`` wrote.
    """

    uses = ("agent.price", "agent.idle_price")
    sees_credit = needs_credit = True

    def __init__(self, adapter: str) -> None:
        model = restore(load(smollm2_folder()), Path(adapter))
        self.inner = RegulatorAgent(model)
        self.name = self.decided_by = "smollm2 (adapter)"

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What was read and said in the last decision."""
        return self.inner.attempts

    def decide(self, observation: Observation) -> Decision:
        """Take the likeliest words."""
        return self.inner.decide(observation)
