"""From a record to the page: each section with its charts, tables, or why it is empty."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from core import describe_privacy, scored_at
from reporting import charts, tables
from reporting import formatting as words
from reporting.agent import agent_section
from reporting.formatting import NONE
from reporting.page import render
from reporting.parts import Section, Table
from reporting.record import Record, known, number
from reporting.style import legend_line


def build_page(record: Record) -> str:
    """Build the whole report.

    Parameters
    ----------
    record : Record
        The run.

    Returns
    -------
    str
        HTML, one file, everything inside.
    """
    sections = [
        *([_damage(record)] if record.damaged else []),
        _outcome(record),
        _participants(record),
        _curves(record),
        _ratio(record),
        _participation(record),
        _costs(record),
        _classes(record),
        _circuit(record),
        agent_section(record),
        _teachers(record),
        _ledger(record),
        _settings(record),
        _origin(record),
    ]
    if words.status(record) != "completed":  # why it ended stands above, once
        sections = [section for section in sections if section.shown or section.warnings]
    return render(
        title=str(record.config.get("name") or record.name),
        folder=record.name,
        status=words.status(record),
        verdict=words.verdict(record),
        facts=_facts(record),
        sections=sections,
        legend=_legend(record),
    )


def _legend(record: Record) -> list[tuple[str, str]]:
    """Return the clients' lines; of many clients what their bands are."""
    if _many(record):
        line = legend_line(0)
        return [
            (line, "median of the clients"),
            (f"{line}; border-top-width: 9px; opacity: .45", "middle half of them"),
            (f"{line}; border-top-width: 9px; opacity: .2", "all of them"),
        ]
    names = map(record.client_name, record.client_ids)
    return [(legend_line(index), name) for index, name in enumerate(names)]


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
    name = str(ready.get("data", NONE))
    if ready.get("synthetic") and "synthetic" not in name.lower():
        name += " (synthetic)"
    return [
        ("Data", name),
        ("Features", str(ready.get("features", NONE))),
        ("Model", f"{ready.get('model', NONE)}, {_angles(ready.get('angles'))}"),
        *_adapter(ready.get("adapter")),
        ("Agent", str(ready.get("agent", NONE))),
        ("Clients", str(len(ready.get("clients", [])))),
        ("Rounds", f"{len(record.round_ids)} of at most {ready.get('rounds', NONE)}"),
        ("Judged on", words.judged(record)),
        *(("Privacy", line) for line in describe_privacy(record.summary.get("privacy") or {})),
    ]


def _warnings(said: Mapping[str, Any]) -> list[Any]:
    found = said.get("warnings")
    return found if isinstance(found, list) else []


def _adapter(facts: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Say what the sites trained together of their language models."""
    if not facts:
        return []
    said = (
        f"{facts.get('kind')}, {words.size(facts.get('bytes'))}, {facts.get('rounds')} rounds: "
        f"accuracy {words.percent(facts.get('accuracy'))} on the sites' validation rows"
    )
    return [("Shared adapter", said)]


def _angles(count: object) -> str:
    """Say how many angles a model has."""
    return f"{words.whole(count)} angles"


def _outcome(record: Record) -> Section:
    head = ("On the test rows", "Accuracy", "95 % interval", "Macro-F1", "Macro-recall", "Loss")
    test = record.summary.get("test") or {}
    scored = test.get("accuracy") is not None
    reason = str(record.summary.get("stop_reason") or record.end.get("stop_reason") or "")
    ended = f"The run ended because: {reason}." if reason else ""
    sites = words.capital(scored_at(test, len(record.prepared.get("clients", []))))
    return Section(
        "outcome",
        "Outcome",
        f"{ended} {sites + '.' if sites else ''} The interval says how far the choice of so many "
        "test rows alone may move an accuracy (Wilson).".strip(),
        tables=[Table(head, words.score_rows(record) if scored else [], frozenset(range(1, 6)))],
        empty="There was no final test: the run did not get that far.",
        warnings=[f"Not scored: {failure}" for failure in test.get("failures") or []],
    )


def _damage(record: Record) -> Section:
    return Section(
        "damaged",
        "Damaged files",
        "This is wrong with the run's files and left out of what follows.",
        tables=[Table(("File and place",), [[one] for one in record.damaged])],
    )


def _participants(record: Record) -> Section:
    head = ("Site", "Training rows", "Validation rows", "Training rows per class", "Backend", "LLM")
    return Section(
        "clients",
        "Who took part",
        "Rows stay at their site; only moments, model parameters and figures are sent.",
        tables=[Table(head, tables.clients(record), frozenset({1, 2}), _folded(record))],
        empty="The run ended before the sites had reported.",
        warnings=[str(line) for line in _warnings(record.prepared) + _warnings(record.summary)],
    )


def _curves(record: Record) -> Section:
    return Section(
        "curves",
        "Loss and accuracy",
        "Thick: the global model on the validation rows; the ring marks the round that was kept. "
        f"{_colours(record)} on its own validation rows.{_gap(record)}",
        pictures=[
            charts.curves(record, "loss", "validation loss"),
            charts.curves(record, "accuracy", "validation accuracy", share=True),
        ],
        empty="No figures by round are on record.",
        legend="all",
    )


def _colours(record: Record) -> str:
    return (
        "Bands: the clients' trained models, each"
        if _many(record)
        else ("Colours: each client's trained model")
    )


def _gap(record: Record) -> str:
    """Explain why clients' losses may lie above the server's: the server's rows are clean."""
    if record.prepared.get("evaluation", "central") != "central":
        return ""
    backends = {str(one.get("backend")) for one in record.prepared.get("clients", [])}
    judge = str((record.summary.get("judge") or {}).get("backend") or "exact")
    noise = number(((record.config.get("settings") or {}).get("data") or {}).get("label_noise"))
    causes = []
    if noise > 0:
        causes.append(f"{words.percent(noise)} of their labels are wrong on purpose (label_noise)")
    if not backends <= {judge}:
        causes.append(f"they measure on {', '.join(sorted(backends))}, the server on {judge}")
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
        pictures=[charts.heat(record, "steps", "steps", "Blues", marked=True)],
        empty="No participation is on record.",
    )


def _costs(record: Record) -> Section:
    longest = max((value for row in record.grid("idle_seconds") for value in known(row)), default=0)
    places = 2 if longest < 10 else 1
    return Section(
        "costs",
        "Circuits and waiting",
        f"{_circuits(record)} A client waits from its own reply until the slowest participant's.",
        pictures=[
            charts.circuits(record),
            charts.idle(record),
            charts.heat(record, "idle_seconds", "seconds waiting", "Oranges", places),
        ],
        empty="No costs are on record.",
    )


def _circuits(record: Record) -> str:
    """Say what the circuits that are counted are."""
    kind = record.circuit_kind
    if kind == "executed":
        return "Circuits are those that the devices ran."
    said = "Circuits are those that a device would have to run"
    if kind == "simulated":
        return f"{said}; here all were simulated."
    return f"{said}; where the backend is a simulator they were simulated." if kind else f"{said}."


def _classes(record: Record) -> Section:
    test = record.summary.get("test") or {}
    error = test.get("calibration_error")
    note = "Rows of the final test by true and predicted class; shares are of the true class."
    if record.calibration:
        note += (
            " Second picture: how often predictions of each confidence are right, with 95 % "
            "intervals; above the dashed line they are right more often than their confidence "
            "says, below it less often. Mean distance from the line, by rows (expected calibration "
            f"error, ECE): {words.percent(error)}."
        )
    return Section(
        "classes",
        "By class",
        note,
        pictures=[charts.confusion(record), charts.reliability(record)],
        tables=[Table(tables.CLASS_HEAD, tables.classes(record), frozenset(range(1, 6)))],
        empty="No confusion matrix is on record: there was no final test"
        + (", or each site kept its own." if words.status(record) == "completed" else "."),
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
    head = (
        "Site",
        "Accuracy",
        "Macro-F1",
        "Loss",
        "Loss before calibration",
        "Temperature",
        "Epochs",
        "Fine-tuning",
    )
    return Section(
        "teachers",
        "The sites' language models",
        "Judged on each site's own validation rows, which calibration has seen too.",
        tables=[Table(head, tables.teachers(record), frozenset(range(1, 8)), _folded(record))],
        empty="No language model was fine-tuned in this run.",
    )


def _ledger(record: Record) -> Section:
    head, everybody, each = tables.ledger(record)
    figures = frozenset(range(1, len(head)))
    folded = _folded(record)
    return Section(
        "ledger",
        "Cost ledger",
        "Costs that nobody had are left out.",
        tables=[
            Table(head, everybody if folded else everybody + each, figures),
            Table(head, each if folded else [], figures, folded),
            Table(tables.STAGES, tables.stages(record), frozenset({1, 2, 3, 4})),
            Table(("Phase", "Time"), tables.seconds(record), frozenset({1})),
        ],
        empty="No costs are on record.",
    )


def _settings(record: Record) -> Section:
    changed, kept = tables.settings(record)
    return Section(
        "settings",
        "Settings",
        "First those that differ from the defaults.",
        tables=[
            Table(("Setting", "This run", "Default"), changed),
            Table(("Setting", "Value"), kept, folded=f"{len(kept)} settings at their defaults"),
        ],
        empty="config.json is missing or cannot be read.",
    )


def _origin(record: Record) -> Section:
    return Section(
        "origin",
        "Seed, commit and versions",
        "",
        tables=[Table(("What", "Value"), tables.origin(record))],
        empty="config.json is missing or cannot be read.",
    )
