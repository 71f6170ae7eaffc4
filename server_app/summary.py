"""What a run reports of itself: its first event, and its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from logging import WARNING
from typing import Any

from flwr.common.logger import log

from core import Settings, is_simulated, read_jsonl, registry
from core.accounting import privacy_spent
from core.formatting import display_safe, percent
from core.messages import UNSET
from core.storage.checkpoints import Checkpoint
from server_app.prepare import dominant_sites
from strategies import LlmQfl, agent_summary
from strategies.context import EvaluationResult, PreparedFederation, RunContext

SITE_FIGURES = (
    "client",
    "site",
    "train_rows",
    "val_rows",
    "test_rows",
    "class_rows",
    "backend",
    "llm",
    "seconds",
)
"""What the first event says of each site's report."""


def prepared_event(context: RunContext) -> dict[str, Any]:
    """Describe what runs: the line that the launcher prints first."""
    from data import Projection
    from quantum import build_ansatz, head_of

    settings, federation = context.settings, context.federation
    first, reports = federation.first, [member.about for member in federation.members]
    ansatz = build_ansatz(settings.quantum, len(first.classes))
    rows = sum(about.val_rows for about in reports), sum(about.test_rows for about in reports)
    validation, test = context.evaluator.rows if context.evaluator else rows
    projection = Projection.from_bytes(federation.projection)
    made = " by the shared adapter" if settings.features.encoder == "shared" else ""
    features = f"{projection.kinds.replace(',', ' + ')}{made}, {len(projection.mean)}"
    return {
        "event": "prepared",
        "data": first.data,
        "synthetic": registry.declared("dataset", settings.data.source, "synthetic", False),
        "kind": first.kind,
        "classes": first.classes,
        "clients": [{name: getattr(about, name) for name in SITE_FIGURES} for about in reports],
        "model": ansatz.describe(),
        "angles": ansatz.angles,
        "parameters": ansatz.angles + head_of(ansatz, settings.quantum, len(first.classes)).size,
        **_adapter(federation),
        "features": f"{features} -> {settings.quantum.qubits} ({settings.features.projection})",
        **({"feature_choice": federation.choice} if federation.choice else {}),
        "agent": context.agent.name,
        "evaluation": settings.evaluation.mode,
        "validation_rows": validation,
        "test_rows": test,
        "warnings": _row_warnings(context),
        "rounds": settings.run.rounds,
        "moments_left_out": sorted(federation.left_out),
        "seconds": context.clock.total,
    }


def resumed_event(context: RunContext, checkpoint: Checkpoint) -> dict[str, Any]:
    """Describe how a run goes on."""
    names = ("client", "backend", "seconds")
    members = context.federation.members
    return {
        "event": "resumed",
        "round": checkpoint.number,
        "clients": [{name: getattr(m.about, name) for name in names} for m in members],
        "damaged": checkpoint.damaged,
        "seconds": context.clock.total,
    }


def _row_warnings(context: RunContext) -> list[str]:
    """Say what is odd about the rows, as the server and the sites see them; a line each."""
    members = context.federation.members
    notes = context.evaluator.notes if context.evaluator else ()
    sites = [f"{m.about.site}: {m.about.notes}" for m in members if m.about.notes != UNSET]
    heavy = dominant_sites(members, context.settings)
    lines = [display_safe(line) for line in (*notes, *sites, *heavy)]
    for line in lines:
        log(WARNING, "data: %s", line)
    return lines + [display_safe(line) for line in context.federation.notes]


def _adapter(federation: PreparedFederation) -> dict[str, Any]:
    """Return what is reported of the shared adapter; nothing without one."""
    return {"adapter": federation.adapter.facts()} if federation.adapter else {}


def summarise(
    strategy: LlmQfl,
    result: EvaluationResult,
    baselines: Mapping[str, EvaluationResult],
    decisions: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Put the summary together; ``seconds`` of clients are summed over clients.

    Parameters
    ----------
    strategy : LlmQfl
        After the last round.
    result, baselines : mapping
        Scores on the test rows, of the kept model and of each baseline.
    decisions : sequence of mapping
        The lines of ``agent.jsonl``.
    """
    state, context, settings = strategy.state, strategy.context, strategy.settings
    spent, each = state.ledger.totals(), state.ledger.by_client()
    place = _kept_place(state.losses, settings.evaluation.keep)
    validation = strategy.kept.scores or (state.losses[place], state.accuracies[place])
    teachers = [strategy.teachers[client] for client in sorted(strategy.teachers)]
    central = settings.evaluation.mode == "central"
    backend = settings.evaluation.backend if central else settings.quantum.backend
    privacy = privacy_spent(settings, strategy.releases) | _secure(context)
    return {
        "status": "completed",
        "rounds": len(state.losses),
        "best_round": strategy.kept.round,
        "averaged_rounds": strategy.kept.averaged,
        "stop_reason": strategy.stop_reason,
        "test": result,
        "validation": {"loss": validation[0], "accuracy": validation[1]},
        "baselines": baselines,
        "teachers": teachers,
        "ledger": asdict(spent),
        "simulated_circuits": sum(
            each[client].circuits
            for client, member in state.members.items()
            if client in each and is_simulated(member.about.backend)
        ),
        "seconds": {
            **context.clock.seconds,
            "fine_tuning": spent.llm_seconds,
            "training": spent.train_seconds,
            "total": context.clock.total,
        },
        "error": "",
        **({"privacy": privacy} if privacy else {}),
        "agent": agent_summary(settings.agent.kind, context.agent.name, decisions),
        "warnings": _test_warnings(settings, context.federation.first.classes, result)
        + _cut_warnings(teachers),
        **_adapter(context.federation),
        "judge": {"backend": backend, **context.facts()["judge"]},
    }


def _secure(context: RunContext) -> dict[str, Any]:
    """Return what secure aggregation did in the run; empty without it."""
    privacy = context.settings.privacy
    if not privacy.secure_aggregation:
        return {}
    events = read_jsonl(context.journal.folder / "metrics.jsonl")
    groups = [group for event in events for group in event.get("groups") or ()]
    lost = sum(not group["summed"] for group in groups)
    sizes = [len(group["summed"]) for group in groups if group["summed"]]
    return {
        "secure_aggregation": {
            "threshold": privacy.threshold,
            "group_size": privacy.group_size,
            "groups": len(groups) - lost,
            "lost_groups": lost,
            "smallest_sum": min(sizes, default=0),
        }
    }


def _kept_place(losses: Sequence[float], keep: str) -> int:
    """Return where in the history the kept model is: lost rounds are not in it."""
    if keep == "last":
        return len(losses) - 1
    best = min(losses, default=0.0)
    return max((k for k, loss in enumerate(losses) if loss == best), default=0)


def _test_warnings(
    settings: Settings, classes: Sequence[str], result: EvaluationResult
) -> list[str]:
    """Say which classes no site had a test row of, and what the test is without dominant sites."""
    lines = []
    rows = [sum(row) for row in result.get("confusion", ())]
    absent = [display_safe(name) for name, count in zip(classes, rows, strict=False) if not count]
    if absent and settings.evaluation.mode == "federated":  # else said at the start
        lines.append(f"no test row of the class {', '.join(absent)} at any site")
    return lines + [
        f"client {one['client']} declares {one['declared']:,} test rows, of which "
        f"{one['counted']:,} count; without it the test accuracy is {percent(one['accuracy'])}"
        for one in result.get("without", [])
    ]


def _cut_warnings(teachers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how many training texts the sites' language models did not read to their end."""
    cut = [teacher["cut"] for teacher in teachers if teacher.get("cut")]
    where = f"at {len(cut)} site{'s' * (len(cut) > 1)}"
    return [f"{sum(cut):,} training texts {where} were cut at llm.max_tokens"] if cut else []
