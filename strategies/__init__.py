"""The LlmQfl strategy and its pure parts: regulation, selection, termination, aggregation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from strategies.agents.rules import build_agent
from strategies.agents.termination import stop_reason
from strategies.regulation import loss_ratio, next_steps
from strategies.selection import closest, distances
from strategies.state import FederationState, Member, add_costs, rows_that_count

if TYPE_CHECKING:
    from strategies.adapters import SharedAdapter, train_shared_adapter
    from strategies.journal import Journal, agent_summary
    from strategies.llm_qfl import LlmQfl
    from strategies.update_validation import last_line

__all__ = [
    "FederationState",
    "Journal",
    "LlmQfl",
    "Member",
    "SharedAdapter",
    "add_costs",
    "agent_summary",
    "build_agent",
    "closest",
    "distances",
    "last_line",
    "loss_ratio",
    "next_steps",
    "rows_that_count",
    "stop_reason",
    "train_shared_adapter",
]


_HOMES = {
    "Journal": "strategies.journal",
    "agent_summary": "strategies.journal",
    "LlmQfl": "strategies.llm_qfl",
    "SharedAdapter": "strategies.adapters",
    "last_line": "strategies.update_validation",
    "train_shared_adapter": "strategies.adapters",
}


def __getattr__(name: str) -> Any:
    """Load the strategy, and with it Flower, when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'strategies' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
