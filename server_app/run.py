"""One federated run from first message to report."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import (
    Settings,
    UserError,
    derive_seed,
    display_safe,
    is_simulated,
    unexpected_error,
)
from core.formatting import percent
from core.messages import UNSET, Parameters, pack_parameters, unpack_parameters
from core.privacy import privacy_spent
from server_app.evaluation import CentralJudge, FederatedJudge, Judge, Verdict
from server_app.journal import RunJournal, totals
from server_app.prepare import Prepared, dominant_sites, prepare, tell_bound
from server_app.resume import Past, carry_on, rejoin
from strategies import LlmQfl, agent_summary, build_agent
from strategies.agents import Agent


class Clock:
    """Wall seconds by phase, with those of the run's earlier parts.

    Parameters
    ----------
    before : mapping, optional
        What `told` said when the run was broken off.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        earlier = dict(before or {})
        self.began = time.monotonic() - earlier.pop("total", 0.0)
        self.seconds: dict[str, float] = earlier
        self._open: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._open[name] = time.monotonic()
        try:
            yield
        finally:
            began = self._open.pop(name)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def told(self) -> dict[str, float]:
        """Return the seconds so far, of phases under way too, and their ``total``."""
        now, found = time.monotonic(), dict(self.seconds)
        for name, began in self._open.items():
            found[name] = found.get(name, 0.0) + now - began
        return {**found, "total": self.total}

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
    past: Past | None = None,
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
    past : Past or None
        What the run was when it was broken off; None: it begins.

    Returns
    -------
    dict
        What ``summary.json`` holds.

    Raises
    ------
    UserError
        If nodes, data or settings do not allow the run.
    """
    clock = Clock(past.told["seconds"] if past else None)
    first_id = past.run if past else run_id
    with clock.phase("prepare"):
        agent = agent or build_agent(settings)  # first: a missing model costs the sites nothing
        if past:
            prepared = rejoin(grid, settings, past, journal.folder)
        else:
            prepared = prepare(grid, settings, journal)
        strategy = _strategy(settings, agent, prepared, journal, first_id)
        tell_bound(settings, prepared.members)
        judge = _judge(grid, settings, prepared, strategy, first_id)
        spent = partial(added_up, judge, past.told["judge"] if past else {})
        journal.also = lambda: _beside(strategy, prepared, clock) | {"judge": spent()}
        first = past.arrays if past else _first_parameters(settings, prepared, journal)
    if past is None:
        _begin(strategy, prepared, judge, journal, clock, first)
    else:
        carry_on(strategy, past, prepared, journal.folder)
        journal.event(_resumed_event(past, prepared, clock))
    with clock.phase("rounds"):
        kept = _rounds(grid, strategy, first, judge)
    journal.model({**unpack_parameters(kept), **_projection_arrays(prepared)})
    summary = _concluded(strategy, kept, judge, clock, journal)
    summary["warnings"] = _untested(settings, prepared, summary["test"]) + _cut(summary)
    summary["warnings"] += _apart(summary["test"])
    summary |= _adapter(prepared) | {"judge": {"backend": _judged_on(settings), **spent()}}
    journal.summary(summary)
    return summary


def _strategy(
    settings: Settings, agent: Agent, prepared: Prepared, journal: RunJournal, run_id: str
) -> LlmQfl:
    projection = prepared.projection.to_bytes()
    made = LlmQfl(settings, agent, prepared.members, projection, prepared.class_weights, journal)
    made.run = run_id or UNSET
    if prepared.adapter is not None:
        from llm import freeze_adapter

        classes = len(prepared.first.classes)
        made.adapter = freeze_adapter(prepared.adapter.arrays, classes, settings.run.seed).digest
    return made


def _rounds(grid: Grid, strategy: LlmQfl, first: Parameters, judge: Judge) -> ArrayRecord:
    """Run the rounds that are left; return the kept parameters."""
    run = strategy.settings.run
    result = strategy.start(
        grid,
        pack_parameters(first),
        num_rounds=run.rounds,
        timeout=run.round_timeout,
        evaluate_fn=judge.validate,
    )
    return _kept(result.arrays, strategy)


def _begin(
    strategy: LlmQfl,
    prepared: Prepared,
    judge: Judge,
    journal: RunJournal,
    clock: Clock,
    first: Parameters,
) -> None:
    """Write down what round 0 has found, and keep it: a run broken off in round 1 goes on here."""
    strategy.state.ledger.add(0, prepared.costs)
    if prepared.adapter is not None:
        journal.adapter(prepared.adapter.arrays)
    journal.event(_prepared_event(strategy.settings, prepared, strategy, judge, clock.total))
    if strategy.settings.privacy.dp != "none":
        journal.released(0)
    strategy.checkpoint(0, pack_parameters(first))


def _beside(strategy: LlmQfl, prepared: Prepared, clock: Clock) -> dict[str, Any]:
    """Return what a checkpoint holds besides the strategy's own state."""
    return {
        "run": strategy.run,
        "projection": base64.b64encode(prepared.projection.to_bytes()).decode("ascii"),
        "class_weights": prepared.class_weights,
        "adapter": prepared.adapter.facts() if prepared.adapter else None,
        "seconds": clock.told(),
    }


def added_up(judge: Judge, before: Mapping[str, float]) -> dict[str, float]:
    """Return what the server's own evaluations cost, with those of the run's earlier parts."""
    now = judge.spent()
    return {key: now.get(key, 0) + before.get(key, 0) for key in {**before, **now}}


def _resumed_event(past: Past, prepared: Prepared, clock: Clock) -> dict[str, Any]:
    """Say that a run goes on."""
    return {
        "event": "resumed",
        "round": past.number,
        "clients": [
            {"client": m.client, "backend": m.about.backend, "seconds": m.about.seconds}
            for m in prepared.members
        ],
        "damaged": past.checkpoint.damaged,
        "seconds": clock.total,
    }


def _concluded(
    strategy: LlmQfl,
    kept: ArrayRecord,
    judge: Judge,
    clock: Clock,
    journal: RunJournal,
) -> dict[str, Any]:
    """Test the kept model, once, and return the summary."""
    settings = strategy.settings
    with clock.phase("evaluation"):
        verdict, baselines = judge.test(kept)
    log(INFO, "test accuracy %.4f", verdict["accuracy"])
    journal.ledger(strategy.state.ledger)
    summary = _summary(strategy, verdict, baselines, clock)
    if told := privacy_spent(settings, strategy.releases):
        summary["privacy"] = told
    agent = strategy.agent
    summary["agent"] = agent_summary(settings.agent.kind, agent.name, journal.decisions())
    return summary


def _kept(arrays: ArrayRecord | None, strategy: LlmQfl) -> ArrayRecord:
    """Return the kept parameters; a run without a round has none."""
    if arrays is None or not strategy.state.losses:
        raise UserError(
            f"the run ended before its first round: {strategy.stop_reason}",
            "budgets that pay for a round",
            "raise the budget (stop.* or hardware.budget_*)",
        )
    return arrays


def _judge(
    grid: Grid, settings: Settings, prepared: Prepared, strategy: LlmQfl, run_id: str
) -> Judge:
    if settings.evaluation.mode == "central":
        judge = CentralJudge(settings, prepared, run_id)
        # Credit is made of single clients' models: with privacy nobody is told of it.
        strategy.score = judge.score if settings.privacy.dp == "none" else None
        return judge
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
    try:
        picture = classifier.draw()
    except Exception as error:  # matplotlib's, for instance of a bad MPLBACKEND
        log(WARNING, "the circuit is not drawn (%s)", unexpected_error(error))
    else:
        journal.circuit(picture)
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
        "warnings": _warnings(prepared, judge, settings),
        "rounds": settings.run.rounds,
        "moments_left_out": sorted(prepared.notes.left_out),
        "seconds": seconds,
    }


def _warnings(prepared: Prepared, judge: Judge, settings: Settings) -> list[str]:
    """Say what is odd about the rows, as the server and the sites see them; a line each."""
    heavy = dominant_sites(prepared.members, settings)
    reports = [member.about for member in prepared.members]
    told = [f"{about.site}: {about.notes}" for about in reports if about.notes != UNSET]
    lines = [display_safe(line) for line in (*judge.notes, *told, *heavy)]
    for line in lines:
        log(WARNING, "data: %s", line)
    return lines + [display_safe(line) for line in prepared.notes.lines(reports)]


def _apart(verdict: Verdict) -> list[str]:
    """Say what the final test is without each site that dominates it."""
    return [
        f"client {one['client']} declares {one['declared']:,} test rows, of which "
        f"{one['counted']:,} count; without it the test accuracy is {percent(one['accuracy'])}"
        for one in verdict.get("without", [])
    ]


def _untested(settings: Settings, prepared: Prepared, verdict: Verdict) -> list[str]:
    """Say which classes no site had a test row of, where the sites did the testing."""
    if settings.evaluation.mode == "central":
        return []  # said at the start
    classes = prepared.first.classes
    rows = [sum(row) for row in verdict["confusion"]]
    absent = [display_safe(name) for name, count in zip(classes, rows, strict=True) if not count]
    return [f"no test row of the class {', '.join(absent)} at any site"] if absent else []


def _cut(summary: dict[str, Any]) -> list[str]:
    """Say how many training texts the sites' language models did not read to their end."""
    cut = [teacher["cut"] for teacher in summary["teachers"] if teacher.get("cut")]
    where = f"at {len(cut)} site{'s' * (len(cut) > 1)}"
    return [f"{sum(cut):,} training texts {where} were cut at llm.max_tokens"] if cut else []


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
        "simulated_circuits": sum(
            state.ledger.of(member.client).circuits
            for member in state.members.values()
            if is_simulated(member.about.backend)
        ),
        "seconds": {
            **clock.seconds,
            "fine_tuning": spent.llm_seconds,
            "training": spent.train_seconds,
            "total": clock.total,
        },
        "error": "",
    }
