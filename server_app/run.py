"""One federated run from first message to report."""

from __future__ import annotations

from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import AUTO, Settings, UserError, derive_seed, unexpected_error
from core.messages import Parameters, pack_parameters, unpack_parameters
from core.model_file import model_settings
from server_app.closing import final_test, kept_model
from server_app.evaluation import CentralEvaluator
from server_app.feature_choice import with_features
from server_app.pipeline import projection_arrays
from server_app.prepare import prepare, warn_of_step_limit, with_step_costs
from server_app.resume import RunHistory, rejoin, restore
from server_app.summary import prepared_event, resumed_event, summarise
from strategies import LlmQfl, build_agent
from strategies.aggregators import check_aggregator
from strategies.context import Clock, PreparedFederation, RunContext, Watch, unwatched
from strategies.decisions import Agent
from strategies.journal import RunJournal
from strategies.logged_grid import LoggedGrid, site_names, submission
from strategies.privacy_budget import check_first_round


def run(
    grid: Grid,
    settings: Settings,
    journal: RunJournal,
    run_id: str = "",
    agent: Agent | None = None,
    history: RunHistory | None = None,
    watch: Watch = unwatched,
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
    history : RunHistory or None
        What the run was when it was interrupted; None: it begins.
    watch : callable
        Sees the run's events, and may end it.

    Returns
    -------
    dict
        What ``summary.json`` holds.

    Raises
    ------
    UserError
        If nodes, data or settings do not allow the run.
    """
    if history is None:
        check_first_round(settings)
    grid = _logged(grid, journal, run_id)
    clock = Clock(history.state["seconds"] if history else None)
    with clock.phase("prepare"):
        agent = agent or build_agent(settings)  # first: a missing model costs the sites nothing
        federation, settings = _prepared(grid, settings, journal, history, run_id)
        run_id = history.run if history else run_id
        evaluator = _evaluator(settings, federation, run_id, history)
        args = settings, federation, agent, evaluator, journal, clock, run_id, watch
        context = RunContext(*args, depths=_depths(settings, federation))
        journal.chain.append(site_names(federation.members))
        strategy = LlmQfl(context)
        first = history.arrays if history else _first_parameters(context, journal)
        check_aggregator(settings, first)
    if history:
        _go_on(strategy, history)
    else:
        _begin(strategy, journal, first)
    with clock.phase("rounds"):
        kept = kept_model(grid, strategy, _run_rounds(grid, strategy, first))
    return _conclude(grid, context, strategy, kept)


def _logged(grid: Grid, journal: RunJournal, run_id: str) -> Grid:
    """Begin the audit log; all messages pass it from now on."""
    logged = LoggedGrid(grid, journal.chain)
    journal.chain.append(submission(logged, run_id))
    return logged


def _prepared(
    grid: Grid, settings: Settings, journal: RunJournal, history: RunHistory | None, run_id: str
) -> tuple[PreparedFederation, Settings]:
    """Prepare the federation; return it with the settings that its features complete."""
    if history:
        federation = rejoin(grid, settings, history, journal.folder)
    else:
        federation = prepare(grid, settings, journal, run_id)
    found = with_features(settings, federation.projection)
    if settings.quantum.qubits == AUTO:
        federation = with_step_costs(federation, found, settings)
    warn_of_step_limit(found, federation.members)
    return federation, found


def _conclude(
    grid: Grid, context: RunContext, strategy: LlmQfl, kept: ArrayRecord
) -> dict[str, Any]:
    """Write the kept model, test it, and write the ledger and the summary."""
    from data import Projection

    projection = projection_arrays(Projection.from_bytes(context.federation.projection))
    kept, correction = evaluator.corrected(kept) if (evaluator := context.evaluator) else (kept, {})
    context.journal.model({**unpack_parameters(kept), **projection}, _model_facts(context))
    with context.clock.phase("evaluation"):
        result, baselines = final_test(grid, strategy, kept)
    if result:
        log(INFO, "test accuracy %.4f", result["accuracy"])
    context.journal.ledger(strategy.state.ledger)
    summary = summarise(strategy, result, baselines, context.journal.decisions())
    if correction:
        summary["prior_correction"] = correction
    context.journal.summary(summary)
    return summary


def _depths(settings: Settings, federation: PreparedFederation) -> frozenset[int]:
    """Return the angles of the circuits that sites may have, where some have fewer layers."""
    from quantum import depths

    classes = len(federation.first.classes)
    return frozenset(depths(settings.quantum, classes) if settings.quantum.layers else ())


def _evaluator(
    settings: Settings, federation: PreparedFederation, run_id: str, history: RunHistory | None
) -> CentralEvaluator | None:
    """Build the server's evaluator, where evaluation is central."""
    if settings.evaluation.mode == "federated":
        return None
    earlier = history.state["judge"] if history else None
    return CentralEvaluator(settings, federation, run_id, earlier)


def _go_on(strategy: LlmQfl, history: RunHistory) -> None:
    """Put an interrupted run's strategy where it was, and write that down."""
    context = strategy.context
    restore(strategy, history, context.journal.folder)
    resumed = resumed_event(context, history.checkpoint)
    context.journal.event(resumed)
    context.watch(resumed)


def _begin(strategy: LlmQfl, journal: RunJournal, first: Parameters) -> None:
    """Write down round 0, and checkpoint it: a run interrupted in round 1 goes on from here."""
    federation = strategy.context.federation
    strategy.state.ledger.add(0, federation.costs)
    if federation.adapter is not None:
        journal.adapter(federation.adapter.arrays)
    prepared = prepared_event(strategy.context)
    journal.event(prepared)
    if strategy.settings.privacy.dp != "none":
        journal.released(0)
    strategy.checkpoint(0, pack_parameters(first))
    strategy.context.watch(prepared)


def _run_rounds(grid: Grid, strategy: LlmQfl, first: Parameters) -> ArrayRecord:
    """Run the rounds that are left; return the parameters of the best one, or of the last."""
    run, evaluator = strategy.settings.run, strategy.context.evaluator
    result = strategy.start(
        grid,
        pack_parameters(first),
        num_rounds=run.rounds,
        timeout=run.round_timeout,
        evaluate_fn=evaluator.validate if evaluator else None,
    )
    if result.arrays is None or not strategy.state.losses:
        raise UserError(
            f"the run ended before its first round: {strategy.stop_reason}",
            "budgets that pay for a round",
            "raise the budget (stop.*, hardware.budget_* or privacy.max_epsilon)",
        )
    return result.arrays


def _first_parameters(context: RunContext, journal: RunJournal) -> Parameters:
    """Draw the circuit and the first parameters."""
    from quantum import build_classifier

    settings = context.settings
    exact = settings.quantum.model_copy(update={"backend": "exact"})
    classifier = build_classifier(exact, len(context.federation.first.classes))
    try:
        picture = classifier.draw()
    except Exception as error:  # matplotlib's, for instance of a bad MPLBACKEND
        log(WARNING, "the circuit is not drawn (%s)", unexpected_error(error))
    else:
        journal.circuit(picture)
    return dict(classifier.initial(derive_seed(settings.run.seed, "initial")))


def _model_facts(context: RunContext) -> dict[str, Any]:
    """Return what ``model.json`` says of the kept model."""
    from core.own_code import source_digest
    from core.registry import is_extension
    from data import embeds, feature_kind

    settings, first = context.settings, context.federation.first
    kind: Any = first.kind
    features = feature_kind(kind, settings.features)
    needed = model_settings(settings, features)
    own = {"ansatz": needed["quantum"]["model"], "model": needed["llm"]["model"]}
    code = {point: source_digest(point, n) for point, n in own.items() if is_extension(point, n)}
    return {
        "classes": first.classes,
        "kind": first.kind,
        "data": first.data,
        "encoder": first.encoder if embeds([features]) else "",
        "code": {point: digest for point, digest in code.items() if digest},
        "settings": needed,
    }
