"""A run's record as tidy tables: one row an event, one column a quantity, the same in every run.

What a run has not recorded, as one of an earlier version, is missing in its cell, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from core.ledger import COST_KEYS
from reporting.record import Record, number

if TYPE_CHECKING:
    from pandas import DataFrame

COUNT, REAL, FLAG, TEXT = "Int64", "float64", "boolean", "string"

ROUNDS = {
    "round": COUNT,
    "trained": COUNT,
    "aggregated": COUNT,
    "loss": REAL,
    "accuracy": REAL,
    "alignment": REAL,
    "llm_loss": REAL,
    "circuits": COUNT,
    "circuits_total": COUNT,
    "jobs": COUNT,
    "shots_total": COUNT,
    "qpu_seconds_total": REAL,
    "idle_share": REAL,
    "seconds": REAL,
    "reason": TEXT,
    "failures": TEXT,
}
COSTS = {key: REAL if key.endswith("seconds") else COUNT for key in COST_KEYS}
CLIENTS = {
    "round": COUNT,
    "client": COUNT,
    "site": TEXT,
    "aggregated": FLAG,
    "dropped": TEXT,
    "clipped": REAL,
    "rows": COUNT,
    "loss": REAL,
    "accuracy": REAL,
    "train_loss": REAL,
    "ratio": REAL,
    "llm_loss": REAL,
    "llm_accuracy": REAL,
    "llm_macro_f1": REAL,
    "distill_weight": REAL,
    "distill_temperature": REAL,
    **COSTS,
    "busy_seconds": REAL,
}
DECISIONS = {
    "round": COUNT,
    "client": COUNT,
    "trains": FLAG,
    "steps": COUNT,
    "stop": FLAG,
    "reason": TEXT,
    "decided_by": TEXT,
    "guard": TEXT,
    "loss": REAL,
    "llm_loss": REAL,
    "gap": REAL,
    "credit": REAL,
    "circuits": COUNT,
}
LEDGER = {"round": COUNT, "client": COUNT, "site": TEXT, "repeated": FLAG, **COSTS}


def rounds_frame(record: Record) -> DataFrame:
    """Return one row a finished round, the global model's figures and what the round cost.

    Returns
    -------
    DataFrame
        ``trained`` and ``aggregated``: clients. ``loss``: validation, nats; ``accuracy``: share;
        ``alignment``: mean distance of the clients' losses from it, nats; ``llm_loss``: mean of
        their language models', nats. ``circuits`` and ``jobs`` of the round; ``circuits_total``,
        ``shots_total`` and ``qpu_seconds_total`` up to it. ``idle_share``: share of the clients'
        time that is waiting. ``seconds``: of the server's clock. ``reason``: the agent's;
        ``failures``: a line each.
    """
    last = {event["round"]: event for event in record.rounds}
    rows = [
        {**last[at], "trained": _length(last[at], "participants")}
        | {"aggregated": _length(last[at], "aggregated")}
        for at in record.round_ids
    ]
    return _table(rows, ROUNDS)


def clients_frame(record: Record) -> DataFrame:
    """Return one row a client and round in which it trained.

    Returns
    -------
    DataFrame
        ``aggregated``: whether its update counted; ``dropped``: why not; ``clipped``: share of the
        update that was left, 1: all. ``rows``: of training. ``loss`` and ``accuracy`` of its
        model on its validation rows, nats and share; ``train_loss``: of the objective;
        ``ratio``: its loss over ``llm_loss``, that of its language model, nats; ``llm_accuracy``
        and ``llm_macro_f1`` likewise, shares. ``distill_weight`` and ``distill_temperature``:
        lambda and tau of the round. The rest is its cost: `ledger_frame`; ``busy_seconds``: all
        but waiting.
    """
    rows = [{**event, "site": record.client_name(event["client"])} for event in record.clients]
    return _table(rows, CLIENTS)


def decisions_frame(record: Record) -> DataFrame:
    """Return one row a decision and client that the agent saw.

    Returns
    -------
    DataFrame
        ``trains`` and ``steps``: its instruction; 0 steps: none. Of the decision as a
        whole, in each of its rows: ``stop``, ``reason``, ``decided_by`` and ``guard``, what was
        changed for the limits. What the agent had seen of the client: ``loss``, ``llm_loss``,
        ``gap`` and ``credit``, nats, and its ``circuits`` so far.
    """
    return _table((row for line in record.decisions for row in _decided(line)), DECISIONS)


def ledger_frame(record: Record) -> DataFrame:
    """Return one row a client and round with all that it cost.

    Returns
    -------
    DataFrame
        Round 0 is the preparation; one after the last round is the final test, where the clients
        evaluate. ``repeated``: paid for a round that was interrupted and done again: in no total
        of the run. Counts: ``steps``, ``jobs``, ``circuits``, ``shots``, ``two_qubit_gates``,
        ``llm_tokens``; ``bytes_up`` and ``bytes_down``; seconds: ``qpu_``, ``queue_``,
        ``train_``, ``idle_`` and ``llm_seconds``.
    """
    again = record.ledger.get("repeated", {}).get("entries", [])
    entries = [*((e, False) for e in record.ledger.get("entries", [])), *((e, True) for e in again)]
    rows = [
        {**entry, "site": record.client_name(entry["client"]), "repeated": repeated}
        for entry, repeated in entries
    ]
    return _table(rows, LEDGER)


def confusion_frame(record: Record) -> DataFrame:
    """Return the final test's rows, (true class, predicted class); empty before the test."""
    from pandas import DataFrame, Index

    counts = (record.summary.get("test") or {}).get("confusion") or []
    names = record.class_names(len(counts))
    axes = Index(names, name="true"), Index(names, name="predicted")
    return DataFrame(counts, *axes, dtype="int64")


def _decided(line: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield a decision's rows, by client."""
    seen = {view["client"]: view for view in line.get("observation", {}).get("clients", [])}
    steps = {int(client): count for client, count in line.get("steps", {}).items()}
    trains = set(line.get("participants", []))
    for client in sorted({*seen, *trains}):
        ordered = {"trains": client in trains, "steps": steps.get(client, 0)}
        yield {**seen.get(client, {}), **line, "client": client, **ordered}


def _length(event: Mapping[str, Any], key: str) -> int | None:
    return len(event[key]) if key in event else None


def _table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> DataFrame:
    """Make a table of the columns, each of its type; what a row lacks or has wrong is missing."""
    from pandas import DataFrame, Series

    found = list(rows)
    return DataFrame(
        {
            name: Series([_cell(row.get(name), kind) for row in found], dtype=kind)
            for name, kind in columns.items()
        }
    )


def _cell(value: Any, kind: str) -> Any:
    """Return a value of a column's type; None if it is missing or of another."""
    if kind == TEXT:
        return "; ".join(map(str, value)) if isinstance(value, list) else value and str(value)
    if kind == FLAG:
        return value if isinstance(value, bool) else None
    real = number(value)
    return real if kind == REAL else int(real) if real.is_integer() else None
