"""The report's tables: rows of text from a record; the page escapes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core import Settings, flatten, is_number, join_list
from reporting.formatting import (
    NONE,
    amount,
    duration,
    figure,
    interval,
    percent,
    size,
    whole,
)
from reporting.record import Json, Record, number

Row = list[str]

LEDGER = (
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

STAGE_KEYS = ("circuits", "train_seconds", "bytes_up", "bytes_down")

STAGES = ("Of this", *(name for key, name, _ in LEDGER if key in STAGE_KEYS))
"""Head of the table of `stages`."""

PHASES = {
    "fine_tuning": "fine-tuning, all clients added up",
    "training": "quantum training, all clients added up",
}
"""Phases that clients spend at the same time, so that their sum may exceed the run."""


def clients(record: Record) -> list[Row]:
    """Return a row a client: rows, class mix, backend, LLM."""
    classes = [join_list([c]) for c in record.prepared.get("classes", [])]  # some hold commas
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


CLASS_HEAD = ("Class", "Test rows", "Precision", "Recall", "95 % interval of recall", "F1")


def classes(record: Record) -> list[Row]:
    """Return a row a class: precision and recall of the final test, from its confusion."""
    counts = (record.summary.get("test") or {}).get("confusion") or []
    rows = []
    for place, name in enumerate(record.class_names(len(counts))):
        hits, actual = counts[place][place], sum(counts[place])
        said = sum(row[place] for row in counts)
        rows.append(
            [
                name,
                whole(actual),
                percent(hits / said) if said else NONE,
                percent(hits / actual) if actual else NONE,
                interval(hits / actual, actual) if actual else NONE,
                figure(2 * hits / (actual + said)) if actual + said else NONE,
            ]
        )
    return rows


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


def ledger(record: Record) -> tuple[list[str], list[Row], list[Row]]:
    """Return the ledger: the head, the row of all clients, and a row each.

    Costs that are zero everywhere are left out: nothing was spent there. Circuits of simulators
    stand apart from those that a device has run.
    """
    summarised: Json = record.summary.get("ledger") or {}
    totals: Json = record.ledger.get("totals") or summarised.get("totals") or summarised
    each: Mapping[str, Json] = record.ledger.get("clients") or {}
    split = {k: _split(cost, record.simulated.get(int(k))) for k, cost in each.items()}
    if split and all("circuits" not in cost for cost in split.values()):
        parts = ("simulated", "executed")
        sums = {part: sum(cost.get(part) or 0 for cost in split.values()) for part in parts}
        totals = {**{k: v for k, v in totals.items() if k != "circuits"}, **sums}
    else:
        split = {k: dict(cost) for k, cost in each.items()}
    shown = [(key, name, write) for key, name, write in LEDGER if totals.get(key)]
    rows = [
        [record.client_name(int(k)), *(write(split[k].get(key)) for key, _, write in shown)]
        for k in sorted(split, key=int)
    ]
    whole_run = ["All", *(write(totals.get(key)) for key, _, write in shown)]
    return ["Site", *(name for _, name, _ in shown)], [whole_run] if shown else [], rows


def _split(cost: Json, simulated: bool | None) -> dict[str, Any]:
    """Name a client's circuits by what they were; they stay `circuits` where nobody knows."""
    if simulated is None or "circuits" not in cost:
        return dict(cost)
    kind = "simulated" if simulated else "executed"
    return {**{k: v for k, v in cost.items() if k != "circuits"}, kind: cost["circuits"]}


def stages(record: Record) -> list[Row]:
    """Return what preparation, the rounds and the final test cost, where they are told apart."""
    last = max(record.round_ids, default=0)
    after = "Final test" if record.summary.get("test") else "After the last finished round"
    sums: dict[str, dict[str, float]] = {}
    for entry in record.ledger.get("entries") or []:
        at = number(entry.get("round"))
        name = "Preparation" if at == 0 else after if at > last else "Rounds"
        stage = sums.setdefault(name, dict.fromkeys(STAGE_KEYS, 0.0))
        for key in STAGE_KEYS:
            stage[key] += entry[key] if is_number(entry.get(key)) else 0.0
    if set(sums) <= {"Rounds"}:
        return []
    return [
        [name, *(write(sums[name][key]) for key, _, write in LEDGER if key in STAGE_KEYS)]
        for name in ("Preparation", "Rounds", after)
        if name in sums
    ]


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
