"""One federated run from first message to report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from federation import Settings, UserError, derive_seed, explain
from federation.messages import Parameters, pack_parameters, unpack_parameters
from llm.agent import Agent
from server_app.evaluation import CentralJudge, FederatedJudge, Judge, Verdict
from server_app.journal import RunJournal, totals
from server_app.prepare import Prepared, prepare
from strategies import LlmQfl, agent_summary, build_agent


class Clock:
    """Wall seconds by phase."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began


def run(
    grid: Grid,
    settings: Settings,
    journal: RunJournal,
    run_id: str = "",
    agent: Agent | None = None,
) -> dict[str, Any]:
    """Drive a whole run and return its summary.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    settings : Settings
        The run's settings.
    journal : RunJournal
        Where everything is written.
    run_id : str
        Flower's id of the run.
    agent : Agent or None
        Who decides; None: the agent that the settings name.

    Returns
    -------
    dict
        What ``summary.json`` holds.

    Raises
    ------
    UserError
        If nodes, data or settings do not allow the run.
    """
    clock = Clock()
    with clock.phase("prepare"):
        agent = agent or build_agent(settings)  # first: a missing model costs the sites nothing
        prepared = prepare(grid, settings, journal)
        strategy = _strategy(settings, agent, prepared, journal)
        judge = _judge(grid, settings, prepared, strategy, run_id)
        strategy.score = judge.score
        first = _first_parameters(settings, prepared, journal)
    strategy.state.ledger.add(0, prepared.costs)
    if prepared.adapter is not None:
        journal.adapter(prepared.adapter.arrays)
    journal.event(_prepared_event(settings, prepared, strategy, judge, clock.total))
    with clock.phase("rounds"):
        result = strategy.start(
            grid,
            pack_parameters(first),
            num_rounds=settings.run.rounds,
            timeout=settings.run.round_timeout,
            evaluate_fn=judge.validate,
        )
    kept = _kept(result.arrays, strategy)
    journal.model({**unpack_parameters(kept), **_projection_arrays(prepared)})
    return _concluded(strategy, kept, judge, clock, journal, _adapter(prepared))


def _strategy(settings: Settings, agent: Agent, prepared: Prepared, journal: RunJournal) -> LlmQfl:
    projection = prepared.projection.to_bytes()
    return LlmQfl(settings, agent, prepared.members, projection, prepared.class_weights, journal)


def _concluded(
    strategy: LlmQfl,
    kept: ArrayRecord,
    judge: Judge,
    clock: Clock,
    journal: RunJournal,
    adapter: dict[str, Any],
) -> dict[str, Any]:
    """Test the kept model, once, and write the summary."""
    settings = strategy.settings
    with clock.phase("evaluation"):
        verdict, baselines = judge.test(kept)
    log(INFO, "test accuracy %.4f", verdict["accuracy"])
    journal.ledger(strategy.state.ledger)
    summary = _summary(strategy, verdict, baselines, clock) | adapter
    agent = strategy.agent
    summary["agent"] = agent_summary(settings.agent.kind, agent.name, journal.decisions())
    summary["judge"] = {"backend": _judged_on(settings), **judge.spent()}
    journal.summary(summary)
    return summary


def _kept(arrays: ArrayRecord | None, strategy: LlmQfl) -> ArrayRecord:
    """Return the kept parameters; a run without a round has none."""
    if arrays is None or not strategy.state.losses:
        raise UserError(
            explain(
                f"the run ended before its first round: {strategy.stop_reason}",
                "budgets that pay for a round",
                "raise the budget (stop.* or hardware.budget_*)",
            )
        )
    return arrays


def _judge(
    grid: Grid, settings: Settings, prepared: Prepared, strategy: LlmQfl, run_id: str
) -> Judge:
    if settings.evaluation.mode == "central":
        return CentralJudge(settings, prepared, run_id)
    return FederatedJudge(strategy, grid, prepared.members)


def _judged_on(settings: Settings) -> str:
    """Say what the scores were measured on."""
    central = settings.evaluation.mode == "central"
    return settings.evaluation.backend if central else settings.quantum.backend


def _first_parameters(settings: Settings, prepared: Prepared, journal: RunJournal) -> Parameters:
    """Draw the circuit and the first parameters."""
    from quantum import build_classifier

    exact = settings.quantum.model_copy(update={"backend": "exact"})
    classifier = build_classifier(exact, len(prepared.first.classes))
    journal.circuit(classifier.draw())
    return dict(classifier.initial(derive_seed(settings.run.seed, "initial")))


def _projection_arrays(prepared: Prepared) -> Parameters:
    projection = prepared.projection
    return {
        "projection.mean": np.asarray(projection.mean),
        "projection.matrix": np.ascontiguousarray(projection.matrix),
        "projection.scale": np.asarray(projection.scale),
        "projection.clip": np.asarray([projection.clip]),
    }


def _prepared_event(
    settings: Settings, prepared: Prepared, strategy: LlmQfl, judge: Judge, seconds: float
) -> dict[str, Any]:
    """Say what runs: the line that the launcher prints first."""
    from quantum import build_ansatz

    first = prepared.first
    ansatz = build_ansatz(settings.quantum, len(first.classes))
    readouts = 1 if len(first.classes) == 2 else len(first.classes)
    validation, test = judge.rows
    return {
        "event": "prepared",
        "data": first.data,
        "synthetic": settings.data.source == "dna-demo",
        "kind": first.kind,
        "classes": first.classes,
        "clients": [
            {
                "client": about.client,
                "site": about.site,
                "train_rows": about.train_rows,
                "val_rows": about.val_rows,
                "test_rows": about.test_rows,
                "class_rows": about.class_rows,
                "backend": about.backend,
                "llm": about.llm,
                "seconds": about.seconds,
            }
            for about in (member.about for member in prepared.members)
        ],
        "model": ansatz.describe(),
        "angles": ansatz.angles,
        "parameters": ansatz.angles + 2 * readouts,
        **_adapter(prepared),
        "features": f"{_features(prepared)} -> {settings.quantum.qubits} "
        f"({settings.features.projection})",
        "agent": strategy.agent.name,
        "evaluation": settings.evaluation.mode,
        "validation_rows": validation,
        "test_rows": test,
        "rounds": settings.run.rounds,
        "seconds": seconds,
    }


def _adapter(prepared: Prepared) -> dict[str, Any]:
    """Return what is to be said of the shared adapter; nothing without one."""
    return {"adapter": prepared.adapter.facts()} if prepared.adapter else {}


def _features(prepared: Prepared) -> str:
    """Name the raw features; the clients did not know yet how many the adapter makes."""
    said = prepared.first.features
    return said if "," in said else f"{said}, {len(prepared.projection.mean)}"


def _place(losses: Sequence[float], keep: str) -> int:
    """Return where in the history the kept model is: lost rounds are not in it."""
    if keep == "last":
        return len(losses) - 1
    return max((k for k, loss in enumerate(losses) if loss == min(losses)), default=0)


def _summary(
    strategy: LlmQfl, verdict: Verdict, baselines: dict[str, Verdict], clock: Clock
) -> dict[str, Any]:
    """Put the summary together; ``seconds`` of clients are summed over clients."""
    state = strategy.state
    spent = state.ledger.totals()
    place = _place(state.losses, strategy.settings.evaluation.keep)
    return {
        "status": "completed",
        "rounds": len(state.losses),
        "best_round": strategy.best_round,
        "stop_reason": strategy.stop_reason,
        "test": verdict,
        "validation": {"loss": state.losses[place], "accuracy": state.accuracies[place]},
        "baselines": baselines,
        "teachers": [strategy.teachers[client] for client in sorted(strategy.teachers)],
        "ledger": totals(state.ledger),
        "seconds": {
            **clock.seconds,
            "fine_tuning": spent.llm_seconds,
            "training": spent.train_seconds,
            "total": clock.total,
        },
        "error": "",
    }
