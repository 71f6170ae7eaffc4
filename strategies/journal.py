"""What the strategy writes down, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from flwr.app import ArrayRecord

from federation import Cost, idle_share
from strategies.regulation import loss_ratio
from strategies.replies import Round, Update
from strategies.state import FederationState


class Journal(Protocol):
    """Where the strategy writes down what happens."""

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""

    def decision(self, decision: dict[str, Any]) -> None:
        """Append one line to ``agent.jsonl``."""

    def checkpoint(
        self, server_round: int, arrays: ArrayRecord, state: FederationState, best: bool
    ) -> None:
        """Keep the round's parameters and state."""


def client_event(server_round: int, update: Update, cost: Cost, aggregated: bool) -> dict[str, Any]:
    """Return a participant's line of ``metrics.jsonl``."""
    report = update.report
    return {
        "event": "client",
        "round": server_round,
        "client": update.client,
        "aggregated": aggregated,
        "dropped": update.dropped,
        **asdict(report),
        "ratio": loss_ratio(report.loss, report.llm_loss),
        **asdict(cost),
        "busy_seconds": cost.busy_seconds,
    }


def round_event(
    now: Round,
    state: FederationState,
    costs: Mapping[int, Cost],
    loss: float,
    accuracy: float,
    seconds: float,
) -> dict[str, Any]:
    """Return a round's line of ``metrics.jsonl``, once its costs are in the ledger."""
    spent = state.ledger.totals()
    return {
        "event": "round",
        "round": now.number,
        "participants": now.decision.participants,
        "aggregated": now.aggregated,
        "steps": now.decision.steps,
        "loss": loss,
        "accuracy": accuracy,
        "alignment": state.alignments[-1],
        "llm_loss": state.llm_loss(),
        "circuits": sum(cost.circuits for cost in costs.values()),
        "circuits_total": spent.circuits,
        "jobs": sum(cost.jobs for cost in costs.values()),
        "shots_total": spent.shots,
        "qpu_seconds_total": spent.qpu_seconds,
        "idle_share": idle_share(costs.values()),
        "seconds": seconds,
        "reason": now.decision.reason,
        "failures": now.failures,
    }


def teacher_of(update: Update) -> dict[str, float]:
    """Return what an update says of its client's language model, for the summary."""
    said = asdict(update.report)
    figures = {key[4:]: value for key, value in said.items() if key.startswith("llm_")}
    return {"client": update.client, **figures}
