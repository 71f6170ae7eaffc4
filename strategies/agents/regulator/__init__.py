"""The regulator: our small language model that decides, trained by reinforcement.

This door is light: torch and transformers load when an agent is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core import Settings
    from strategies.agents.regulator.agent import RegulatorAgent


class Regulator:
    """Builds the agent from the shipped weights."""

    uses = ("agent.price", "agent.idle_price", "agent.online")
    may_stop = sees_credit = needs_credit = sees_llm_loss = True

    @classmethod
    def from_settings(cls, settings: Settings) -> RegulatorAgent:
        """Build the agent.

        Raises
        ------
        core.ModelError
            If the weights are missing or damaged.
        """
        from strategies.agents.regulator.agent import RegulatorAgent
        from strategies.agents.regulator.policy import load

        return RegulatorAgent(load(), online=settings.agent.online, seed=settings.run.seed)


AGENT = Regulator
