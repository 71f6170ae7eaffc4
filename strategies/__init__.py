"""The LlmQfl strategy and its pure parts: regulation, selection, termination, aggregation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.agents import build_agent
from strategies.regulation import loss_ratio, next_steps
from strategies.selection import closest, distances
from strategies.state import FederationState, Member
from strategies.termination import stop_reason

if TYPE_CHECKING:
    from strategies.journal import Journal
    from strategies.llm_qfl import LlmQfl

__all__ = [
    "FederationState",
    "Journal",
    "LlmQfl",
    "Member",
    "build_agent",
    "closest",
    "distances",
    "loss_ratio",
    "next_steps",
    "stop_reason",
]


def __getattr__(name: str) -> Any:
    """Load the strategy, and with it Flower, when it is first asked for."""
    if name == "LlmQfl":
        from strategies.llm_qfl import LlmQfl

        return LlmQfl
    if name == "Journal":
        from strategies.journal import Journal

        return Journal
    raise AttributeError(f"module 'strategies' has no attribute {name!r}")
