"""After the last round: which model is kept, and what it scores on the test rows."""

from __future__ import annotations

from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import with_idle
from core.messages import EvaluateReport
from server_app.evaluation import federated_test
from strategies import LlmQfl, rows_that_count
from strategies.availability import poll_clients
from strategies.context import EvaluationResult
from strategies.decisions import Decision
from strategies.update_validation import collect_evaluations, summed_up


def kept_model(grid: Grid, strategy: LlmQfl, best: ArrayRecord) -> ArrayRecord:
    """Return the model that the run keeps: the average of its last rounds where that is no worse.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    strategy : LlmQfl
        After the last round.
    best : ArrayRecord
        The model of the best round, or of the last one.
    """
    kept, losses = strategy.kept, strategy.state.losses
    found = kept.average(len(losses))
    if found is None:
        return best
    rounds, mean = found
    evaluator = strategy.context.evaluator
    # 0: no round of the run, whose numbers begin with 1.
    scores = evaluator.validate(0, mean) if evaluator else _at_the_sites(grid, strategy, mean)
    if scores is None:
        return best
    loss, accuracy = float(scores["loss"]), float(scores["accuracy"])  # type: ignore[arg-type]
    kept.choose(rounds, mean, (loss, accuracy), min(losses))
    chosen = "is kept" if kept.averaged else f"is above that of round {kept.round}, which is kept"
    log(INFO, "average of rounds %d to %d: validation loss %.4f %s", rounds[0], rounds[-1],
        loss, chosen)  # fmt: skip
    return best if kept.arrays is None else kept.arrays


def _at_the_sites(grid: Grid, strategy: LlmQfl, mean: ArrayRecord) -> MetricRecord | None:
    """Let every client evaluate a model on its validation rows, if the budgets pay for that.

    Returns
    -------
    MetricRecord or None
        Loss and accuracy; None if a client that evaluated the rounds does not answer.
    """
    state, settings = strategy.state, strategy.settings
    seen = state.observe(len(state.losses), settings)
    abouts = [state.members[client].about for client in state.views]
    circuits = sum(about.val_rows for about in abouts)
    shots = sum(about.val_rows * about.shots_per_circuit for about in abouts)
    for left, cost in ((seen.circuits_left, circuits), (seen.shots_left, shots)):
        if left is not None and left < cost:
            return None
    if seen.qpu_seconds_left is not None and seen.qpu_seconds_left <= 0:
        return None
    reports, _ = _evaluated(grid, strategy, mean, "validation")
    if not reports or {a.client for a in abouts if a.val_rows} - set(reports):
        return None
    return summed_up(reports, rows_that_count(state.members.values(), "val_rows", settings))


def final_test(
    grid: Grid, strategy: LlmQfl, kept: ArrayRecord
) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
    """Test the kept model, once; return its scores and the baselines'; none without a test."""
    context = strategy.context
    if not context.settings.evaluation.test:
        return {}, {}
    if context.evaluator is not None:
        return context.evaluator.test(kept)
    reports, failures = _evaluated(grid, strategy, kept, "test")
    return federated_test(context.settings, context.federation, reports, failures)


def _evaluated(
    grid: Grid, strategy: LlmQfl, arrays: ArrayRecord, split: str
) -> tuple[dict[int, EvaluateReport], list[str]]:
    """Let every available client evaluate a model on its validation or test rows.

    Returns
    -------
    tuple
        The reports by client, and what failed. Their cost is the ledger's last entries, one
        round after the last.
    """
    state, settings = strategy.state, strategy.settings
    begun = [number for number, _, _ in state.ledger.entries]
    number = max([len(state.losses), *begun]) + 1
    strategy.begin_round(number, Decision(participants=(), steps={}))
    now = strategy.current
    for client in sorted(poll_clients(grid, state, settings, strategy.journal.event)):
        now.fail(client, "it is not connected, or still busy with an earlier message")
    config: Any = ConfigRecord({"split": split})
    messages = list(strategy.configure_evaluate(number, arrays, config, grid))
    replies = grid.send_and_receive(messages, timeout=settings.run.round_timeout)
    reports = collect_evaluations(now, replies, state, split)
    state.ledger.add(number, with_idle(now.evaluation))
    return reports, now.failures
