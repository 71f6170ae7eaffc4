"""The report's tables: rows of text from a record; the page escapes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federation import Settings, flatten
from server_app.report.record import Json, Record
from server_app.report.words import NONE, amount, duration, figure, percent, size, whole

Row = list[str]

LEDGER = (
    ("steps", "Optimizer steps", amount),
    ("circuits", "Circuits", amount),
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

PHASES = {
    "fine_tuning": "fine-tuning, all clients added up",
    "training": "quantum training, all clients added up",
}
"""Phases that clients spend at the same time, so that their sum may exceed the run."""


def clients(record: Record) -> list[Row]:
    """Return a row a client: rows, class mix, backend, LLM."""
    classes = [str(c) for c in record.prepared.get("classes", [])]
    rows = []
    for client in record.prepared.get("clients", []):
        counts = client.get("class_rows", [])
        mix = ", ".join(f"{c} {whole(n)}" for c, n in zip(classes, counts, strict=False))
        rows.append(
            [
                str(client.get("site") or f"client {client.get('client')}"),
                whole(client.get("train_rows")),
                whole(client.get("val_rows")),
                mix or NONE,
                str(client.get("backend") or NONE),
                str(client.get("llm") or "none"),
            ]
        )
    return rows


def decisions(record: Record) -> list[Row]:
    """Return a row a decision: round, who, steps, reason."""
    rows = []
    for decision in record.decisions:
        participants = [int(k) for k in decision.get("participants", [])]
        stop = bool(decision.get("stop"))
        rows.append(
            [
                str(decision.get("round", NONE)),
                "stop" if stop else _who(participants, len(record.client_ids)),
                NONE if stop else _steps(decision.get("steps") or {}, participants),
                " ".join(str(decision.get("reason") or NONE).split()),
            ]
        )
    return rows


def _who(participants: list[int], clients: int) -> str:
    if clients and len(participants) == clients:
        return f"all {clients}"
    return ", ".join(str(k) for k in sorted(participants)) or NONE


def _steps(steps: Mapping[str, Any], participants: list[int]) -> str:
    values = [int(steps[str(k)]) for k in sorted(participants) if str(k) in steps]
    if len(set(values)) == 1:
        return f"{values[0]} each" if len(values) > 1 else str(values[0])
    return ", ".join(str(value) for value in values) or NONE


def teachers(record: Record) -> list[Row]:
    """Return a row a client's LLM, as judged on its own validation rows."""
    rows = []
    for teacher in record.summary.get("teachers") or []:
        client = teacher.get("client")
        rows.append(
            [
                record.client_name(client) if isinstance(client, int) else str(client),
                percent(teacher.get("accuracy")),
                figure(teacher.get("macro_f1")),
                figure(teacher.get("loss")),
                figure(teacher.get("raw_loss")),
                figure(teacher.get("temperature"), 2),
                whole(teacher.get("epochs")),
                "from store" if teacher.get("reused") else duration(teacher.get("seconds")),
            ]
        )
    return rows


def ledger(record: Record) -> tuple[list[str], list[Row]]:
    """Return the ledger's head and rows: a cost a row; all clients, then each.

    Costs that are zero everywhere are left out: nothing was spent there.
    """
    summarised: Json = record.summary.get("ledger") or {}
    totals: Json = record.ledger.get("totals") or summarised.get("totals") or summarised
    each: Mapping[str, Json] = record.ledger.get("clients") or {}
    ids = sorted(each, key=int)
    head = ["Cost", "All", *(record.client_name(int(k)) for k in ids)]
    rows = [
        [name, write(totals.get(key)), *(write(each[k].get(key)) for k in ids)]
        for key, name, write in LEDGER
        if totals.get(key)
    ]
    return head, rows


def seconds(record: Record) -> list[Row]:
    """Return the seconds of each phase."""
    spent: Json = record.summary.get("seconds") or {}
    return [[PHASES.get(name, name.replace("_", " ")), duration(v)] for name, v in spent.items()]


def settings(record: Record) -> tuple[list[Row], list[Row]]:
    """Return the settings that differ from the defaults, and the others."""
    defaults = flatten(Settings())
    tree: Json = record.config.get("settings") or {}
    flat = {
        f"{section}.{key}": value
        for section, values in tree.items()
        if isinstance(values, Mapping)
        for key, value in values.items()
    }
    changed = [
        [key, _value(value), _value(defaults[key]) if key in defaults else NONE]
        for key, value in flat.items()
        if key not in defaults or value != defaults[key]
    ]
    kept = [[k, _value(v)] for k, v in flat.items() if k in defaults and v == defaults[k]]
    return changed, kept


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def origin(record: Record) -> list[Row]:
    """Return where the run comes from: seed, commit, start, versions."""
    config = record.config
    rows = [
        [label, str(config[key])]
        for key, label in (("started", "Started"), ("seed", "Seed"), ("commit", "Commit"))
        if config.get(key) not in (None, "")
    ]
    versions: Json = config.get("versions") or {}
    return rows + [[str(name), str(version)] for name, version in versions.items()]
