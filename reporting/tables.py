"""The run page's tables: rows of text from a record; the page escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from core import Settings, flatten
from core.formatting import BASELINES, is_shifted, join_list, kept_rounds
from reporting.crowd import quantiles
from reporting.formatting import (
    amount,
    capital,
    duration,
    figure,
    interval,
    percent,
    setting_value,
    size,
    text,
    whole,
)
from reporting.page import Columns, Table, table_of
from reporting.record import Json, Record

COSTS = (
    ("steps", "Optimizer steps", amount),
    ("jobs", "Jobs", amount),
    ("circuits", "Circuits", amount),
    ("simulated", "Circuits, simulated", amount),
    ("executed", "Circuits, executed", amount),
    ("shots", "Shots", amount),
    ("two_qubit_gates", "Two-qubit gates", amount),
    ("qpu_seconds", "QPU time", duration),
    ("queue_seconds", "Queue time", duration),
    ("train_seconds", "Training time", duration),
    ("idle_seconds", "Waiting at the barrier", duration),
    ("bytes_up", "Sent by clients", size),
    ("bytes_down", "Sent to clients", size),
    ("llm_tokens", "LLM tokens", amount),
    ("llm_seconds", "LLM time", duration),
)
"""Columns of the ledger."""

TEACHERS: Columns = (
    ("site", "Site", str),
    ("accuracy", "Accuracy", percent),
    ("macro_f1", "Macro-F1", figure),
    ("loss", "Loss", figure),
    ("raw_loss", "Loss before calibration", figure),
    ("temperature", "Temperature", lambda value: figure(value, 2)),
    ("epochs", "Epochs", whole),
    ("time", "Fine-tuning", str),
)
"""Columns of the table of language models."""

STAGE_KEYS = ("circuits", "train_seconds", "bytes_up", "bytes_down")

PHASES = {
    "fine_tuning": "fine-tuning, all clients added up",
    "training": "quantum training, all clients added up",
}
"""Phases that clients spend at the same time, so that their sum may exceed the run."""


def scores(record: Record) -> Table:
    """Return the test scores: the quantum model first, then the baselines."""
    summary = record.summary
    test, baselines = summary.get("test") or {}, summary.get("baselines") or {}
    shifted = "prior corrected" * is_shifted(summary)
    rows = [(", ".join(filter(None, ("Quantum model", kept_rounds(summary), shifted))), test)]
    if unseen := test.get("unseen"):
        rows.append(
            (f"The same, {whole(unseen.get('rows'))} rows not among the training rows", unseen)
        )
    rows += [(capital(name), baselines[key]) for key, name in BASELINES if baselines.get(key)]
    columns = (
        ("name", "On the test rows", str),
        ("accuracy", "Accuracy", percent),
        ("interval", "95 % interval", str),
        ("macro_f1", "Macro-F1", figure),
        ("macro_recall", "Macro-recall", figure),
        ("loss", "Loss", figure),
    )
    return table_of(columns, [{**found, "name": name, "interval": interval(
        found.get("accuracy"), found.get("rows", test.get("rows"))
    )} for name, found in rows])  # fmt: skip


def clients(record: Record) -> Table:
    """Return a row a client: rows, class mix, backend, LLM."""
    classes = [join_list([c]) for c in record.prepared.get("classes", [])]  # some hold commas
    rows = []
    for client in record.prepared.get("clients", []):
        counts = zip(classes, client.get("class_rows", []), strict=False)
        mix = ", ".join(f"{name} {whole(rows)}" for name, rows in counts)
        site = client.get("site") or f"client {client.get('client')}"
        rows.append({**client, "site": site, "mix": mix, "llm": client.get("llm") or "none"})
    columns = (
        ("site", "Site", text),
        ("train_rows", "Training rows", whole),
        ("val_rows", "Validation rows", whole),
        ("mix", "Training rows per class", text),
        ("backend", "Backend", text),
        ("llm", "LLM", text),
    )
    return table_of(columns, rows, numeric={1, 2})


def classes(record: Record) -> Table:
    """Return a row a class: precision and recall of the final test, from its confusion."""
    counts = (record.summary.get("test") or {}).get("confusion") or []
    rows = []
    for place, name in enumerate(record.class_names(len(counts))):
        hits, actual = counts[place][place], sum(counts[place])
        predicted = sum(row[place] for row in counts)
        recall = hits / actual if actual else None
        rows.append(
            {
                "class": name,
                "rows": actual,
                "precision": hits / predicted if predicted else None,
                "recall": recall,
                "interval": interval(recall, actual),
                "f1": 2 * hits / (actual + predicted) if actual + predicted else None,
            }
        )
    columns = (
        ("class", "Class", str),
        ("rows", "Test rows", whole),
        ("precision", "Precision", percent),
        ("recall", "Recall", percent),
        ("interval", "95 % interval of recall", str),
        ("f1", "F1", figure),
    )
    return table_of(columns, rows)


def teachers(record: Record) -> Table:
    """Return a row a client's LLM, as evaluated on its own validation rows."""
    rows = [
        {
            **teacher,
            "site": record.client_name(teacher["client"]),
            "time": "from store" if teacher.get("reused") else duration(teacher.get("seconds")),
        }
        for teacher in record.summary.get("teachers") or []
    ]
    return table_of(TEACHERS, rows)


def ledger(record: Record) -> tuple[Table, Table]:
    """Return the ledger of all clients, and of each.

    Costs that are zero everywhere are left out: nothing was spent there. Circuits of simulators
    stand apart from those that a device has run.
    """
    summarised: Json = record.summary.get("ledger") or {}
    totals: Json = record.ledger.get("totals") or summarised
    each: Mapping[str, Json] = record.ledger.get("clients") or {}
    split = {k: _split(cost, record.simulated.get(int(k))) for k, cost in each.items()}
    if split and all("circuits" not in cost for cost in split.values()):
        parts = ("simulated", "executed")
        sums = {part: sum(cost.get(part) or 0 for cost in split.values()) for part in parts}
        totals = {**{k: v for k, v in totals.items() if k != "circuits"}, **sums}
    else:
        split = {k: dict(cost) for k, cost in each.items()}
    shown = [column for column in COSTS if totals.get(column[0])]
    rows = [{**split[k], "site": record.client_name(int(k))} for k in sorted(split, key=int)]
    columns: Columns = [("site", "Site", str), *shown]
    return table_of(columns, [{**totals, "site": "All"}] if shown else []), table_of(columns, rows)


def ledger_spread(record: Record) -> Table:
    """Return how each cost is spread over the clients: least, 10 %, median, 90 % and most."""
    each: Mapping[str, Json] = record.ledger.get("clients") or {}
    spent = [column for column in COSTS if any(cost.get(column[0]) for cost in each.values())]
    return quantiles(spent, list(each.values()))


def _split(cost: Json, simulated: bool | None) -> dict[str, Any]:
    """Name a client's circuits by what they were; they stay `circuits` where nobody knows."""
    if simulated is None or "circuits" not in cost:
        return dict(cost)
    kind = "simulated" if simulated else "executed"
    return {**{k: v for k, v in cost.items() if k != "circuits"}, kind: cost["circuits"]}


def stages(record: Record) -> Table:
    """Return what preparation, the rounds and the final test cost, if there is more than rounds."""
    last = max(record.round_ids, default=0)
    after = "Final test" if record.summary.get("test") else "After the last finished round"
    entries = record.ledger.get("entries") or []
    frame = pd.DataFrame(entries, columns=["round", *STAGE_KEYS]).astype(float).fillna(0.0)
    frame["stage"] = "Rounds"
    frame.loc[frame["round"] == 0, "stage"] = "Preparation"
    frame.loc[frame["round"] > last, "stage"] = after
    sums = frame.groupby("stage")[list(STAGE_KEYS)].sum()
    order = [name for name in ("Preparation", "Rounds", after) if name in sums.index]
    rows = [] if order == ["Rounds"] else sums.loc[order].reset_index().to_dict("records")
    costs = [column for column in COSTS if column[0] in STAGE_KEYS]
    return table_of([("stage", "Of this", str), *costs], rows)


def phases(record: Record) -> Table:
    """Return the seconds of each phase."""
    spent: Json = record.summary.get("seconds") or {}
    rows = [[PHASES.get(name, name.replace("_", " ")), duration(v)] for name, v in spent.items()]
    return Table(("Phase", "Time"), rows)


def settings(record: Record) -> tuple[Table, Table]:
    """Return the settings that differ from the defaults, and the others."""
    defaults = flatten(Settings())
    changed, others = list[Sequence[str]](), list[Sequence[str]]()
    for key, value in record.settings.items():
        if key in defaults and value == defaults[key]:
            others.append([key, setting_value(value)])
        else:
            changed.append([key, setting_value(value), setting_value(defaults.get(key))])
    folded = f"{len(others)} settings at their defaults"
    return (
        Table(("Setting", "This run", "Default"), changed, ()),
        Table(("Setting", "Value"), others, (), folded),
    )


def origin(record: Record) -> Table:
    """Return where the run comes from: start, seed, commit, versions."""
    config = record.config
    named = [(key.capitalize(), config.get(key)) for key in ("started", "seed", "commit")]
    rows = [[label, str(value)] for label, value in named if value not in (None, "")]
    rows += [[name, version] for name, version in (config.get("versions") or {}).items()]
    return Table(("What", "Value"), rows, ())
