"""A study's folder as a table: one row a run, read from ``study.json`` and the runs' folders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import DataError, real_path
from core.storage.files import read_json
from reporting.compared_run import WINDOW, smoothed
from reporting.fedavg_reference import History, prices, real
from reporting.record import Json, Record, number, read_record

if TYPE_CHECKING:
    from pandas import DataFrame

SCORES = ("accuracy", "macro_recall", "macro_f1", "loss")
"""On the test rows: shares, and nats."""

COSTS = ("rounds", "circuits", "spend", "seconds", "idle_seconds", "bytes")
"""What a run pays, and what it has paid when it first reaches the target."""

PAID = tuple(f"{cost}_to_target" for cost in COSTS)
SIDE = ("validation_loss", "target", "reached", *PAID, "wall_seconds", "status", "error", "folder")
COLUMNS = {"seed", *SCORES, *COSTS, *SIDE}
"""Columns of the table beside its axes and its own figures."""


@dataclass(frozen=True)
class StudyRecord:
    """A study as its folder has it.

    Attributes
    ----------
    folder : Path
        The folder.
    plan : Mapping
        ``study.json``: axes, seeds, reference, target, and where the runs are.
    table : DataFrame
        One row a run: the axes' values, ``seed``; on the test rows ``accuracy``,
        ``macro_recall``, ``macro_f1`` (shares) and ``loss`` (nats); ``validation_loss``;
        ``rounds``, ``circuits``, ``spend`` (circuits times price), ``bytes`` both ways,
        ``idle_seconds`` summed over clients, ``seconds`` (of the rounds one after the other, each
        as long as its slowest client), ``wall_seconds`` of this machine; the study's own figures;
        ``target``, whether it was ``reached``, and each cost ``_to_target``: what was paid until
        then, or in all where it was not; ``status``, ``error``, ``folder``.
    curves : tuple of DataFrame
        Each run's rounds: ``round``, the costs so far, validation ``accuracy`` and ``loss``.
    settings : tuple of Mapping
        Each run's settings by key; empty where it has not begun.
    damaged : tuple of str
        What could not be read; a line each.
    """

    folder: Path
    plan: Json
    table: DataFrame
    curves: tuple[DataFrame, ...]
    settings: tuple[Json, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(self.plan["axes"])

    @property
    def figures(self) -> tuple[str, ...]:
        """The study's own figures."""
        return tuple(self.plan.get("figures", ()))

    @property
    def cells(self) -> list[tuple[Any, ...]]:
        """Each cell's values, in order."""
        rows = self.table[list(self.axes)].itertuples(index=False, name=None)
        return list(dict.fromkeys(rows))

    def reference_of(self, cell: Sequence[Any]) -> tuple[Any, ...]:
        """Return the cell that one is compared with."""
        reference = self.plan.get("reference") or {}
        return tuple(reference.get(a, own) for a, own in zip(self.axes, cell, strict=True))


def read_study_record(folder: Path) -> StudyRecord:
    """Read a study, which may be unfinished.

    Raises
    ------
    DataError
        If the folder holds no study.
    """
    from pandas import DataFrame

    plan = read_json(folder / "study.json")
    if not isinstance(plan.get("axes"), dict) or not isinstance(plan.get("runs"), list):
        raise DataError(f"no study in {str(folder)!r}", "a study's folder", "check the path")
    rows, curves, settings, damaged = [], [], [], list[str]()
    for run in plan["runs"]:
        record = _record(folder, run["folder"])
        damaged += [f"{run['folder']}: {line}" for line in record.damaged]
        row, curve = _read_run(folder, plan, run, record)
        rows.append(row)
        curves.append(curve)
        settings.append(record.settings)
    table = DataFrame(rows)
    table["reached"] = table["reached"].astype("boolean")
    return StudyRecord(
        real_path(folder), plan, table, tuple(curves), tuple(settings), tuple(damaged)
    )


def _record(folder: Path, name: str) -> Record:
    """Read a run; of one that has not begun an empty record."""
    try:
        return read_record(folder / name) if name else Record(name="")
    except DataError:
        return Record(name=name)


def _read_run(
    folder: Path, plan: Json, run: Json, record: Record
) -> tuple[dict[str, Any], DataFrame]:
    """Return a run's row and its rounds."""
    row: dict[str, Any] = {**run["cell"], "seed": run["seed"]}
    done = run["status"] == "completed"
    summary = record.summary if done else {}
    test, curve = summary.get("test") or {}, rounds_of(record)
    row |= {key: number(test.get(key)) for key in SCORES}
    row |= {"validation_loss": number((summary.get("validation") or {}).get("loss"))}
    row |= _totals(record, curve) if done else dict.fromkeys(COSTS, math.nan)
    row |= {"wall_seconds": number((summary.get("seconds") or {}).get("total"))}
    row |= {path: _at(summary, path) for path in plan.get("figures", ())}
    row |= to_target(curve if done else curve.iloc[:0], run.get("target"))
    place = str(folder / run["folder"]) if run["folder"] else ""
    row |= {"status": run["status"], "error": run.get("error", ""), "folder": place}
    return row, curve


def _at(summary: Json, path: str) -> float:
    """Return the figure at a dotted path; NaN for none."""
    found: Any = summary
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return number(found)


def rounds_of(record: Record) -> DataFrame:
    """Return a row a round: what all so far has cost, and the scores on the validation rows.

    Returns
    -------
    DataFrame
        ``round``, `COSTS` so far with the preparation, ``accuracy``, ``loss``, and
        ``smooth_accuracy``, the mean of the last three rounds (of all where a run has fewer).
    """
    from pandas import DataFrame

    entries = _entries(record)
    spent = entries.groupby("round")[list(COSTS[1:])].sum(min_count=1)
    spent["seconds"] = entries.groupby("round")["busy"].max()
    so_far = spent.sort_index().cumsum()
    window = min(WINDOW, len(record.round_ids))
    accuracies, losses = record.series("accuracy"), record.series("loss")
    rows = [
        {
            "round": at,
            "rounds": place,
            **(so_far.loc[:at].iloc[-1].to_dict() if len(so_far.loc[:at]) else {}),
            "accuracy": accuracies[place - 1],
            "loss": losses[place - 1],
            "smooth_accuracy": smoothed(accuracies[:place], window),
        }
        for place, at in enumerate(record.round_ids, 1)
    ]
    columns = ["round", *COSTS, "accuracy", "loss", "smooth_accuracy"]
    return DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], float))


def _entries(record: Record) -> DataFrame:
    """Return the ledger's lines; of an unfinished run those of the clients' events."""
    from pandas import DataFrame

    busy = ["train_seconds", "llm_seconds", "queue_seconds"]
    keys = ["round", "client", "circuits", "idle_seconds", "bytes_up", "bytes_down", *busy]
    lines = record.ledger.get("entries") or record.clients
    frame = DataFrame(list(lines), columns=keys).astype(float)
    price = prices(record, History(record))
    frame["spend"] = frame["circuits"] * frame["client"].map(price)
    frame["bytes"] = frame["bytes_up"] + frame["bytes_down"]
    frame["busy"] = frame["seconds"] = frame[busy].sum(axis=1)
    return frame


def _totals(record: Record, curve: DataFrame) -> dict[str, float]:
    """Return a run's costs, the final test's included."""
    entries = _entries(record)
    sums = {key: float(entries[key].sum(min_count=1)) for key in COSTS[1:]}
    slowest = entries.groupby("round")["busy"].max()
    return {**sums, "rounds": float(len(curve)), "seconds": float(slowest.sum(min_count=1))}


def to_target(curve: DataFrame, target: float | None) -> dict[str, Any]:
    """Return whether a run reached a target, and what it had paid by then, or in all."""
    if target is None or not len(curve):
        nothing = dict.fromkeys(PAID, math.nan)
        return {"target": math.nan if target is None else target, "reached": None, **nothing}
    there = curve[curve["smooth_accuracy"] >= target]
    point = there.iloc[0] if len(there) else curve.iloc[-1]
    paid = {f"{cost}_to_target": float(point[cost]) for cost in COSTS}
    return {"target": target, "reached": bool(len(there)), **paid}


def final_accuracy(folder: Path) -> float | None:
    """Return the mean validation accuracy of a run's last three rounds."""
    record = read_record(folder)
    values = record.series("accuracy")
    return smoothed(values, min(WINDOW, len(values))) if values else real(None)
