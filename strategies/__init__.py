"""The LlmQfl strategy and its pure parts: regulation, selection, termination, aggregation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door
from strategies.agents.guard import stop_reason
from strategies.agents.rules import build_agent
from strategies.regulation import closest, distances, loss_ratio, next_steps
from strategies.state import FederationState, Member, add_costs, rows_that_count

if TYPE_CHECKING:
    from strategies.adapters import SharedAdapter, train_shared_adapter
    from strategies.journal import RunJournal, agent_summary
    from strategies.llm_qfl import LlmQfl
    from strategies.update_validation import last_line


__getattr__ = lazy_door(
    __name__,
    {
        "strategies.adapters": "SharedAdapter train_shared_adapter",
        "strategies.journal": "RunJournal agent_summary",
        "strategies.llm_qfl": "LlmQfl",
        "strategies.update_validation": "last_line",
    },
)
