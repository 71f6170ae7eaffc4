"""The LlmQfl strategy and its pure parts: regulation, selection, termination, aggregation.

This door is light: neither Flower nor a model loads before a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.doors import lazy_door

if TYPE_CHECKING:
    from strategies.adapters import SharedAdapter, train_shared_adapter
    from strategies.decisions.extension import build_agent
    from strategies.decisions.guard import stop_reason
    from strategies.journal import RunJournal, agent_summary
    from strategies.llm_qfl import LlmQfl
    from strategies.regulation import closest, distances, loss_ratio, next_steps
    from strategies.state import FederationState, Member, add_costs, rows_that_count
    from strategies.update_validation import last_line


__getattr__ = lazy_door(
    __name__,
    {
        "strategies.adapters": "SharedAdapter train_shared_adapter",
        "strategies.decisions.extension": "build_agent",
        "strategies.decisions.guard": "stop_reason",
        "strategies.journal": "RunJournal agent_summary",
        "strategies.llm_qfl": "LlmQfl",
        "strategies.regulation": "closest distances loss_ratio next_steps",
        "strategies.state": "FederationState Member add_costs rows_that_count",
        "strategies.update_validation": "last_line",
    },
)
