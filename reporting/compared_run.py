"""One run as a comparison sees it: its figures, its settings, and how it went round by round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from core import DataError, UserError
from core.formatting import wilson_interval
from reporting.fedavg_reference import History, prices, real, spend
from reporting.formatting import error, status
from reporting.record import Json, Record, read_record

if TYPE_CHECKING:
    from pandas import DataFrame

WINDOW = 3
"""Rounds over which validation accuracy is averaged before it is held against the target."""

SMOOTHING = f"mean of the last {WINDOW} rounds (of all rounds where a run has fewer)"

SPENT = ("circuits", "idle_seconds", "bytes")
SCORES = ("accuracy", "loss")


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes
    ----------
    name : str
        Name of its results folder.
    figures, settings, found : Mapping
        What it came to, its settings, and what was seen of the data, which settings do not say.
    points : DataFrame, a row a round
        ``round``, and by then ``circuits``, ``idle_seconds`` and ``bytes``, preparation included;
        ``accuracy`` and ``loss`` of the global model on validation rows, and the same ``smooth``.
    damaged : tuple of str
        What is wrong with its files.
    """

    name: str
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    found: Mapping[str, Any]
    points: DataFrame
    damaged: tuple[str, ...] = ()

    @property
    def best(self) -> float | None:
        """Best validation accuracy, smoothed."""
        return real(self.points["smooth_accuracy"].max())

    def first(self, target: float | None) -> dict[str, Any] | None:
        """Return round and costs at which the smoothed accuracy first is the target or more."""
        if target is None or not len(reached := self.points.query("smooth_accuracy >= @target")):
            return None
        first = json_rows(reached.head(1))[0]
        return {key: first[key] for key in ("round", *SPENT)}


def json_rows(frame: DataFrame) -> list[dict[str, Any]]:
    """Return the rows as JSON has them, None for what is not on record."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def read_run(folder: Path) -> Run:
    """Read a run that may be unfinished or damaged.

    Raises
    ------
    UserError
        If the folder is no run's.
    """
    try:
        record = read_record(folder)
    except DataError:
        given, accepted = f"no run in {str(folder)!r}", "the results folders of two or more runs"
        raise UserError(given, accepted, "name others") from None
    return Run(
        name=record.name,
        figures=_figures(record),
        settings=record.settings,
        found=_found(record),
        points=_points(record),
        damaged=record.damaged,
    )


def _figures(record: Record) -> dict[str, Any]:
    summary = record.summary
    test, baselines = summary.get("test") or {}, summary.get("baselines") or {}
    totals: Json = record.ledger.get("totals") or summary.get("ledger") or {}
    busy = _sum(totals, ("train_seconds", "llm_seconds", "queue_seconds"))
    span = _sum({"busy": busy, **totals}, ("busy", "idle_seconds"))
    each = record.ledger.get("clients") or {}
    circuits = {int(k): real(cost.get("circuits")) for k, cost in each.items()}
    known = {k: count for k, count in circuits.items() if count is not None}
    price = prices(record, History(record))
    return {
        "status": status(record),
        "error": error(record),
        "agent": record.prepared.get("agent"),
        "data": record.prepared.get("data"),
        "test_accuracy": real(test.get("accuracy")),
        "test_interval": wilson_interval(test.get("accuracy"), test.get("rows")),
        "test_loss": real(test.get("loss")),
        "majority": _accuracy(baselines, "majority"),
        "linear": _accuracy(baselines, "logistic_projected"),
        "rounds": len(record.round_ids),
        "circuits": real(totals.get("circuits")),
        "simulated": real(summary.get("simulated_circuits")),
        "spend": spend(known if len(known) == len(circuits) else {}, price),
        "idle_share": totals["idle_seconds"] / span if span else None,
        "bytes": _sum(totals, ("bytes_up", "bytes_down")),
        "seconds": real((summary.get("seconds") or {}).get("total")),
    }


def _accuracy(baselines: Json, key: str) -> float | None:
    return real((baselines.get(key) or {}).get("accuracy"))


def _sum(costs: Json, keys: Iterable[str]) -> float | None:
    """Add up costs; None if one of them is not on record."""
    values = [real(costs.get(key)) for key in keys]
    return None if None in values else sum(value for value in values if value is not None)


def _found(record: Record) -> dict[str, Any]:
    """Return what was seen of the data, which settings do not say of files."""
    ready = record.prepared
    rows = [
        [client.get(key) for key in ("train_rows", "val_rows", "test_rows", "class_rows")]
        for client in ready.get("clients") or []
    ]
    held = [ready.get("validation_rows"), ready.get("test_rows")]
    return {"data": [ready.get("data"), ready.get("classes")], "rows": [held, rows]}


def _points(record: Record) -> DataFrame:
    """Return a row a round: costs of everything so far, and the validation scores."""
    keys = ["round", "circuits", "idle_seconds", "bytes_up", "bytes_down"]
    entries = pd.DataFrame(list(record.ledger.get("entries") or record.clients), columns=keys)
    entries = entries.astype(float).assign(bytes=lambda e: e["bytes_up"] + e["bytes_down"])
    window = min(WINDOW, len(record.round_ids))
    costs = entries[list(SPENT)]
    unknown = costs.isna().groupby(entries["round"]).any()
    so_far = costs.groupby(entries["round"]).sum().mask(unknown).cumsum(skipna=False)
    scores = {key: record.series(key) for key in SCORES}
    rows = []
    for place, at in enumerate(record.round_ids, 1):
        spent = so_far.loc[:at].tail(1).to_dict("records")
        point = {"round": at, **(spent[0] if spent else {})}
        for key, values in scores.items():
            recent = smoothed(values[max(0, place - window) : place], window)
            point |= {key: values[place - 1], f"smooth_{key}": recent}
        rows.append(point)
    columns = ["round", *SPENT, *SCORES, *(f"smooth_{key}" for key in SCORES)]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], float))


def smoothed(values: Sequence[float], window: int = WINDOW) -> float | None:
    """Return the mean of the last values; None before there are `window` of them."""
    last = [value for value in map(real, values[-window:]) if value is not None]
    return sum(last) / window if len(last) == window else None
