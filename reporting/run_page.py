"""The page of one run: each section with its charts, tables, or why it is empty."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.formatting import describe_privacy, scored_at
from reporting import charts, crowd, tables
from reporting.agent import agent_section
from reporting.fedavg_reference import History
from reporting.formatting import (
    amount,
    capital,
    outcome,
    percent,
    size,
    status,
    text,
    whole,
)
from reporting.page import Page, Section, Table, section, source
from reporting.record import Record, number


def build_page(record: Record) -> str:
    """Build the whole page of a run; HTML in one file, everything inside."""
    history = History(record) if record.decisions else None
    sections = [
        _outcome(record),
        _participants(record, history),
        _curves(record),
        section("run", "ratio", pictures=[charts.ratios(record)], legend="clients"),
        _participation(record),
        _costs(record),
        _classes(record),
        _circuit(record),
        agent_section(record, history),
        _teachers(record),
        _ledger(record),
        section("run", "settings", tables=tables.settings(record)),
        section("run", "origin", tables=[tables.origin(record)]),
    ]
    if status(record) != "completed":  # why it ended stands above, once
        sections = [part for part in sections if part.shown or part.warnings]
    if record.damaged:
        damaged = Table(("File and place",), [[one] for one in record.damaged])
        sections.insert(0, section("run", "damaged", tables=[damaged]))
    return Page(
        title=str(record.config.get("name") or record.name),
        folder=record.name,
        status=status(record),
        outcome=outcome(record),
        facts=_facts(record),
        sections=sections,
        legend=_legend(record),
    ).html()


def _legend(record: Record) -> list[tuple[str, str]]:
    """Return the clients' lines; of many clients what their bands are."""
    if _many(record):
        line = charts.legend_line(0)
        middle = "10 to 90 % of them" if crowd.crowded(record) else "middle half of them"
        return [
            (line, "median of the clients"),
            (f"{line}; border-top-width: 9px; opacity: .45", middle),
            (f"{line}; border-top-width: 9px; opacity: .2", "all of them"),
        ]
    names = map(record.client_name, record.client_ids)
    return [(charts.legend_line(index), name) for index, name in enumerate(names)]


def _many(record: Record) -> bool:
    return len(record.client_ids) > charts.MANY_CLIENTS


def _folded(table: Table) -> Table:
    """Fold a table of clients where they are many."""
    rows = len(table.rows)
    return replace(table, folded=f"{rows} clients") if rows > charts.MANY_CLIENTS else table


def _facts(record: Record) -> list[tuple[str, str]]:
    """Return what ran, in a few words each."""
    ready = record.prepared
    if not ready:
        return []
    name = text(ready.get("data"))
    if ready.get("synthetic") and "synthetic" not in name.lower():
        name += " (synthetic)"
    return [
        ("Data", name),
        ("Features", text(ready.get("features"))),
        *(("Chosen because of", text(why)) for why in (ready.get("feature_choice"),) if why),
        ("Model", f"{text(ready.get('model'))}, {whole(ready.get('angles'))} angles"),
        *_adapter(ready.get("adapter")),
        ("Agent", text(ready.get("agent"))),
        ("Clients", str(len(ready.get("clients", [])))),
        ("Rounds", f"{len(record.round_ids)} of at most {whole(ready.get('rounds'))}"),
        ("Evaluated on", _evaluated_on(record)),
        *(("Privacy", line) for line in describe_privacy(record.summary.get("privacy") or {})),
    ]


def _evaluated_on(record: Record) -> str:
    """Say on what backend the global model was evaluated, and what that cost the server."""
    cost = record.summary.get("judge") or {}
    backend = text(cost.get("backend"))
    if not cost.get("jobs"):
        return backend
    jobs, circuits, shots = (amount(cost.get(key)) for key in ("jobs", "circuits", "shots"))
    return f"{backend}, by the server: {jobs} jobs, {circuits} circuits, {shots} shots"


def _adapter(facts: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Say what the sites trained together of their language models."""
    if not facts:
        return []
    line = (
        f"{facts.get('kind')}, {size(facts.get('bytes'))}, {facts.get('rounds')} rounds: "
        f"accuracy {percent(facts.get('accuracy'))} on the sites' validation rows"
    )
    return [("Shared adapter", line)]


def _outcome(record: Record) -> Section:
    test = record.summary.get("test") or {}
    reason = str(record.summary.get("stop_reason") or record.end.get("stop_reason") or "")
    sites = capital(scored_at(test, len(record.prepared.get("clients", []))))
    values = {
        "ended": f"The run ended because: {reason}." if reason else "",
        "sites": f"{sites}." if sites else "",
    }
    return section(
        "run",
        "outcome",
        values,
        tables=[tables.scores(record)] if test.get("accuracy") is not None else [],
        warnings=_first(
            [f"Not scored: {failure}" for failure in test.get("failures") or []],
            "summary.json has all",
        ),
    )


MOST_WARNINGS = 20
"""Lines of warnings of a section; more are counted."""


def _participants(record: Record, history: History | None) -> Section:
    found = [*(record.prepared.get("warnings") or ()), *(record.summary.get("warnings") or ())]
    found = _first(found, "metrics.jsonl and summary.json have all")
    if not crowd.crowded(record):
        return section("run", "clients", tables=[_folded(tables.clients(record))], warnings=found)
    rows = crowd.client_rows(record, history)
    search = crowd.all_clients(rows)
    return section("run", "clients", tables=crowd.extremes(rows), search=search, warnings=found)


def _first(lines: list[str], where: str) -> list[str]:
    more = len(lines) - MOST_WARNINGS
    return [*lines[:MOST_WARNINGS], f"{more:,} more; {where}"] if more > 0 else lines


def _participation(record: Record) -> Section:
    if not crowd.crowded(record):
        picture = charts.heat_map(record, "steps", "steps", "Blues", marked=True)
        return section("run", "participation", pictures=[picture])
    steps = crowd.spread(record, "steps", "optimizer steps", charts.HALF)
    pictures = [crowd.participation(record), steps]
    note = source()["run"]["crowd"]["participation"]
    return replace(section("run", "participation", pictures=pictures), note=note)


def _teachers(record: Record) -> Section:
    if not crowd.crowded(record):
        return section("run", "teachers", tables=[_folded(tables.teachers(record))])
    columns = [column for column in tables.TEACHERS if column[0] not in ("site", "time")]
    rows = record.summary.get("teachers") or []
    return section("run", "teachers", tables=[crowd.quantiles(columns, rows)])


def _curves(record: Record) -> Section:
    lines = "Bands: the clients' trained models, each"
    if not _many(record):
        lines = "Colours: each client's trained model"
    pictures = [charts.curves(record, key, f"validation {key}") for key in ("loss", "accuracy")]
    values = {"lines": lines, "gap": _gap(record)}
    return section("run", "curves", values, pictures=pictures, legend="all")


def _gap(record: Record) -> str:
    """Explain why clients' losses may lie above the server's: the server's rows are clean."""
    if record.prepared.get("evaluation", "central") != "central":
        return ""
    backends = {str(one.get("backend")) for one in record.prepared.get("clients", [])}
    server = str((record.summary.get("judge") or {}).get("backend") or "exact")
    noise = number(record.setting("data", "label_noise"))
    causes = []
    if noise > 0:
        causes.append(f"{percent(noise)} of their labels are wrong on purpose (label_noise)")
    if not backends <= {server}:
        causes.append(f"they measure on {', '.join(sorted(backends))}, the server on {server}")
    if not causes:
        return ""
    return (
        f" The clients' losses are not the server's: {'; '.join(causes)}. The gap between them "
        "is that noise, not overfitting."
    )


def _costs(record: Record) -> Section:
    pictures = [
        charts.circuits(record),
        charts.idle(record),
        crowd.spread(record, "idle_seconds", "seconds waiting")
        if crowd.crowded(record)
        else charts.heat_map(record, "idle_seconds", "seconds waiting", "Oranges"),
    ]
    return section("run", "costs", {"circuits": _circuits(record)}, pictures=pictures)


def _circuits(record: Record) -> str:
    """Say what the circuits that are counted are."""
    counted = "Circuits are those that a device would have to run"
    return {
        "executed": "Circuits are those that the devices ran.",
        "simulated": f"{counted}; here all were simulated.",
        "": f"{counted}.",
    }.get(record.circuit_kind, f"{counted}; where the backend is a simulator they were simulated.")


def _classes(record: Record) -> Section:
    error = percent((record.summary.get("test") or {}).get("calibration_error"))
    calibration = source()["run"]["classes"]["calibration"].format(error=error)
    values = {
        "calibration": calibration if record.calibration else "",
        "sites": ", or each site kept its own" if status(record) == "completed" else "",
    }
    pictures = [charts.confusion(record), charts.reliability(record)]
    return section("run", "classes", values, pictures=pictures, tables=[tables.classes(record)])


def _circuit(record: Record) -> Section:
    # As an image, a drawing cannot run scripts or reach outside, whatever it holds.
    data = base64.b64encode(record.circuit).decode("ascii")
    image = f'<img alt="The quantum circuit" src="data:image/svg+xml;base64,{data}">'
    return section("run", "circuit", pictures=[image] if record.circuit else [])


def _ledger(record: Record) -> Section:
    everybody, each = tables.ledger(record)
    costs = [everybody, _folded(each)]
    if crowd.crowded(record):
        costs = [everybody, tables.ledger_spread(record)]
    if not _many(record):
        costs = [replace(everybody, rows=[*everybody.rows, *each.rows])]
    return section("run", "ledger", tables=[*costs, tables.stages(record), tables.phases(record)])
