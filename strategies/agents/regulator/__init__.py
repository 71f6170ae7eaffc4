"""The regulator: our small language model that decides, trained by reinforcement.

This door is light: torch and transformers load when an agent is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core import Settings
    from strategies.agents.regulator.agent import RegulatorAgent


def build_regulator(settings: Settings) -> RegulatorAgent:
    """Build the agent from the shipped weights.

    Raises
    ------
    core.ModelError
        If they are missing or damaged.
    """
    from strategies.agents.regulator.agent import RegulatorAgent
    from strategies.agents.regulator.policy import load

    return RegulatorAgent(load(), online=settings.agent.online, seed=settings.run.seed)
