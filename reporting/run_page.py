"""The page of one run: each section with its charts, tables, or why it is empty."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core import describe_privacy, scored_at
from reporting import charts, tables
from reporting.agent import agent_section
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
from reporting.page import Page, Section, Table
from reporting.record import Record, number


def build_page(record: Record) -> str:
    """Build the whole page of a run; HTML in one file, everything inside."""
    sections = [make(record) for make in SECTIONS]
    if status(record) != "completed":  # why it ended stands above, once
        sections = [section for section in sections if section.shown or section.warnings]
    if record.damaged:
        sections.insert(0, _damage(record))
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
        return [
            (line, "median of the clients"),
            (f"{line}; border-top-width: 9px; opacity: .45", "middle half of them"),
            (f"{line}; border-top-width: 9px; opacity: .2", "all of them"),
        ]
    names = map(record.client_name, record.client_ids)
    return [(charts.legend_line(index), name) for index, name in enumerate(names)]


def _many(record: Record) -> bool:
    return len(record.client_ids) > charts.MANY_CLIENTS


def _folded(record: Record) -> str:
    """Return what to click to see a table of clients; empty where they are few."""
    return f"{len(record.client_ids)} clients" if _many(record) else ""


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
        ("Model", f"{text(ready.get('model'))}, {whole(ready.get('angles'))} angles"),
        *_adapter(ready.get("adapter")),
        ("Agent", text(ready.get("agent"))),
        ("Clients", str(len(ready.get("clients", [])))),
        ("Rounds", f"{len(record.round_ids)} of at most {whole(ready.get('rounds'))}"),
        ("Judged on", _evaluated_on(record)),
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


def _damage(record: Record) -> Section:
    return Section(
        "damaged",
        "Damaged files",
        "This is wrong with the run's files and left out of what follows.",
        tables=[Table(("File and place",), [[one] for one in record.damaged])],
    )


def _outcome(record: Record) -> Section:
    test = record.summary.get("test") or {}
    reason = str(record.summary.get("stop_reason") or record.end.get("stop_reason") or "")
    ended = f"The run ended because: {reason}." if reason else ""
    sites = capital(scored_at(test, len(record.prepared.get("clients", []))))
    return Section(
        "outcome",
        "Outcome",
        f"{ended} {sites + '.' if sites else ''} The interval says how far the choice of so many "
        "test rows alone may move an accuracy (Wilson).".strip(),
        tables=[tables.scores(record)] if test.get("accuracy") is not None else [],
        empty="There was no final test: the run did not get that far.",
        warnings=[f"Not scored: {failure}" for failure in test.get("failures") or []],
    )


def _participants(record: Record) -> Section:
    return Section(
        "clients",
        "Who took part",
        "Rows stay at their site; only moments, model parameters and figures are sent.",
        tables=[replace(tables.clients(record), folded=_folded(record))],
        empty="The run ended before the sites had reported.",
        warnings=[
            *(record.prepared.get("warnings") or ()),
            *(record.summary.get("warnings") or ()),
        ],
    )


def _curves(record: Record) -> Section:
    lines = "Bands: the clients' trained models, each"
    if not _many(record):
        lines = "Colours: each client's trained model"
    return Section(
        "curves",
        "Loss and accuracy",
        "Thick: the global model on the validation rows; the ring marks the round that was kept. "
        f"{lines} on its own validation rows.{_gap(record)}",
        pictures=[
            charts.curves(record, "loss", "validation loss"),
            charts.curves(record, "accuracy", "validation accuracy"),
        ],
        empty="No figures by round are on record.",
        legend="all",
    )


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


def _ratio(record: Record) -> Section:
    return Section(
        "ratio",
        "Quantum loss against LLM loss",
        "Above the dashed line (r = 1) the quantum model is still behind its site's LLM; there "
        "the paper's rules give it more optimizer steps.",
        pictures=[charts.ratios(record)],
        empty="No client had a language model to compare with.",
        legend="clients",
    )


def _participation(record: Record) -> Section:
    return Section(
        "participation",
        "Who trained, and for how many steps",
        "Optimizer steps by client and round; blank: it sat out that round. A ring: it trained, "
        "and its update was not aggregated; a cross: its update was dropped, or it failed.",
        pictures=[charts.heat_map(record, "steps", "steps", "Blues", marked=True)],
        empty="No participation is on record.",
    )


def _costs(record: Record) -> Section:
    return Section(
        "costs",
        "Circuits and waiting",
        f"{_circuits(record)} A client waits from its own reply until the slowest participant's.",
        pictures=[
            charts.circuits(record),
            charts.idle(record),
            charts.heat_map(record, "idle_seconds", "seconds waiting", "Oranges"),
        ],
        empty="No costs are on record.",
    )


def _circuits(record: Record) -> str:
    """Say what the circuits that are counted are."""
    counted = "Circuits are those that a device would have to run"
    return {
        "executed": "Circuits are those that the devices ran.",
        "simulated": f"{counted}; here all were simulated.",
        "": f"{counted}.",
    }.get(record.circuit_kind, f"{counted}; where the backend is a simulator they were simulated.")


def _classes(record: Record) -> Section:
    test = record.summary.get("test") or {}
    note = "Rows of the final test by true and predicted class; shares are of the true class."
    if record.calibration:
        note += (
            " Second picture: how often predictions of each confidence are right, with 95 % "
            "intervals; above the dashed line they are right more often than their confidence "
            "says, below it less often. Mean distance from the line, by rows (expected calibration "
            f"error, ECE): {percent(test.get('calibration_error'))}."
        )
    return Section(
        "classes",
        "By class",
        note,
        pictures=[charts.confusion(record), charts.reliability(record)],
        tables=[tables.classes(record)],
        empty="No confusion matrix is on record: there was no final test"
        + (", or each site kept its own." if status(record) == "completed" else "."),
    )


def _circuit(record: Record) -> Section:
    # As an image, a drawing cannot run scripts or reach outside, whatever it holds.
    data = base64.b64encode(record.circuit).decode("ascii")
    image = f'<img alt="The quantum circuit" src="data:image/svg+xml;base64,{data}">'
    return Section(
        "circuit",
        "The circuit",
        "The quantum model. Below a name: which of the trainable angles (θ) the box has.",
        pictures=[image] if record.circuit else [],
        empty="No drawing of the circuit is in the results folder.",
    )


def _teachers(record: Record) -> Section:
    return Section(
        "teachers",
        "The sites' language models",
        "Judged on each site's own validation rows, which calibration has seen too.",
        tables=[replace(tables.teachers(record), folded=_folded(record))],
        empty="No language model was fine-tuned in this run.",
    )


def _ledger(record: Record) -> Section:
    everybody, each = tables.ledger(record)
    costs = [everybody, replace(each, folded=_folded(record))]
    if not _many(record):
        costs = [replace(everybody, rows=[*everybody.rows, *each.rows])]
    return Section(
        "ledger",
        "Cost ledger",
        "Costs that nobody had are left out.",
        tables=[*costs, tables.stages(record), tables.phases(record)],
        empty="No costs are on record.",
    )


def _settings(record: Record) -> Section:
    return Section(
        "settings",
        "Settings",
        "First those that differ from the defaults.",
        tables=tables.settings(record),
        empty="config.json is missing or cannot be read.",
    )


def _origin(record: Record) -> Section:
    return Section(
        "origin",
        "Seed, commit and versions",
        "",
        tables=[tables.origin(record)],
        empty="config.json is missing or cannot be read.",
    )


SECTIONS = (
    _outcome,
    _participants,
    _curves,
    _ratio,
    _participation,
    _costs,
    _classes,
    _circuit,
    agent_section,
    _teachers,
    _ledger,
    _settings,
    _origin,
)
"""What makes the sections, in their order on the page."""
