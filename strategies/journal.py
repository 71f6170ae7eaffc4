"""What the strategy writes down: the lines of a run's journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from flwr.app import ArrayRecord

from core import AgentUsage, Cost, idle_share
from strategies.agents import Agent, Decision, HasTranscript, Observation
from strategies.regulation import llm_loss_of, loss_ratio
from strategies.state import FederationState
from strategies.update_validation import Round, Update


class Journal(Protocol):
    """Where the strategy writes down what happens."""

    def event(self, event: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""

    def decision(self, decision: dict[str, Any]) -> None:
        """Append one line to ``agent.jsonl``."""

    def underway(self, server_round: int, costs: Mapping[int, Cost]) -> None:
        """Write down what a round has cost so far, in case it is never closed."""

    def released(self, count: int) -> None:
        """Write down, on the disk, how many rounds' messages go out with the one that begins."""

    def checkpoint(
        self,
        server_round: int,
        arrays: ArrayRecord,
        best: ArrayRecord | None,
        state: Mapping[str, Any],
    ) -> None:
        """Store the global parameters after a round, the best model and the run's state."""


def cost_of_questions(attempts: Sequence[Mapping[str, Any]]) -> AgentUsage:
    """Add up what questions to a language model cost, as `agent.jsonl` has them."""
    return AgentUsage(
        questions=len(attempts),
        prompt_tokens=sum(attempt["prompt_tokens"] for attempt in attempts),
        answer_tokens=sum(attempt["answer_tokens"] for attempt in attempts),
        seconds=sum(attempt["seconds"] for attempt in attempts),
    )


def decision_line(
    kind: str, seen: Observation, decision: Decision, notes: list[str], agent: Agent | None
) -> dict[str, Any]:
    """Return a decision's line of ``agent.jsonl``, with an LLM's prompts and answers."""
    line = {"round": seen.round, "kind": kind, **decision.model_dump(), "guard": notes}
    if isinstance(agent, HasTranscript):
        attempts = [attempt.model_dump() for attempt in agent.attempts]
        line["decided_by"] = agent.decided_by
        line["attempts"] = attempts
        took = cost_of_questions(attempts)
        line["tokens"] = took.prompt_tokens + took.answer_tokens
        line["seconds"] = took.seconds
    return {**line, "observation": seen.model_dump()}


def agent_summary(kind: str, name: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up a run's decisions for its summary.

    Parameters
    ----------
    kind, name : str
        `agent.kind`, and what the report calls the agent.
    lines : sequence of mapping
        The lines of ``agent.jsonl``.

    Returns
    -------
    dict
        Counts: all ``decisions``; ``fallbacks``, which the rule made because the model failed;
        ``repaired``, where an answer was repaired or the guard changed the decision; ``asked``,
        the questions, with the tokens and seconds of all of them.
    """
    attempts = [line.get("attempts") or [] for line in lines]
    took = cost_of_questions([attempt for tries in attempts for attempt in tries])
    repaired = [
        bool(line["guard"]) or bool(tries and not tries[-1]["problem"] and tries[-1]["notes"])
        for line, tries in zip(lines, attempts, strict=True)
    ]
    return {
        "kind": kind,
        "name": name,
        "decisions": len(lines),
        "asked": took.questions,
        "fallbacks": sum(bool(tries and tries[-1]["problem"]) for tries in attempts),
        "repaired": sum(repaired),
        "prompt_tokens": took.prompt_tokens,
        "answer_tokens": took.answer_tokens,
        "seconds": took.seconds,
    }


def client_event(now: Round, update: Update, cost: Cost) -> dict[str, Any]:
    """Return a participant's line of ``metrics.jsonl``.

    ``clipped`` is by what its update was brought nearer to the others (`clip_to_centre`); 1: not.
    """
    report, llm_loss = update.report, llm_loss_of(update.report)
    figures = asdict(report)
    if llm_loss is None:  # no language model: what it would have scored is not 0
        figures |= {key: None for key in figures if key.startswith("llm_")}
    return {
        "event": "client",
        "round": now.number,
        "client": update.client,
        "aggregated": update.client in now.aggregated,
        "dropped": update.dropped,
        "clipped": now.shares.get(update.client, 1.0),
        **figures,
        "ratio": None if llm_loss is None else loss_ratio(report.loss, llm_loss),
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
    """Return a round's line of ``metrics.jsonl``, once its costs are in the ledger.

    A lost round aggregates no update; its loss and accuracy are those of the round before.
    """
    spent = state.ledger.totals()
    return {
        "event": "round",
        "round": now.number,
        "participants": now.decision.participants,
        "aggregated": now.aggregated,
        "steps": now.decision.steps,
        "loss": loss,
        "accuracy": accuracy,
        "alignment": state.alignments[-1] if state.alignments else 0.0,
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


def teachers_of(
    updates: Iterable[Update], known: Mapping[int, dict[str, float]]
) -> dict[int, dict[str, float]]:
    """Return what clients' first updates say of their language models, with those `known`.

    A client that fine-tuned none is not in it.
    """
    found = dict(known)
    for update in updates:
        if llm_loss_of(update.report) is not None:
            report = asdict(update.report)
            figures = {key[4:]: value for key, value in report.items() if key.startswith("llm_")}
            found.setdefault(update.client, {"client": update.client, **figures})
    return found
