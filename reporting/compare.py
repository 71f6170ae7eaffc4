"""Puts runs side by side: ``python -m reporting.compare``, which reads a question in JSON.

Reads results folders alone. `llm-qfl compare` prints what comes out; the picture is a page of
`reporting.comparison_page`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from core import DataError, UserError, wilson_interval, write_bytes
from reporting.fedavg_reference import History, prices, real, spend
from reporting.formatting import error, status
from reporting.record import Json, Record, read_record

if TYPE_CHECKING:
    from pandas import DataFrame

WINDOW = 3
"""Rounds over which validation accuracy is averaged before it is held against the target."""

SMOOTHING = f"mean of the last {WINDOW} rounds (of all rounds where a run has fewer)"

NAMES = ("run.name", "run.output", "run.folder", "run.report")
"""Settings that say nothing of what a run does."""

ALIKE = {
    "data": ("data.source", "data.path", "data.test_path", "data.per_site", "data.task",
             "data.hub_name", "data.kind", "data.text_column", "data.label_column", "data.labels"),
    "rows": ("data.train_rows", "data.test_rows", "data.test_fraction", "data.val_fraction",
             "data.server_rows"),
    "partition": ("run.clients", "data.partition", "data.alpha", "data.partition_column",
                  "data.label_noise", "data.noisy_clients", "data.heterogeneity"),
    "seed": ("run.seed",),
    "judge": ("evaluation.mode", "evaluation.backend"),
}  # fmt: skip
"""Settings in which runs must be alike to be compared, by what they are."""

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
        first = _plain(reached.head(1))[0]
        return {key: first[key] for key in ("round", *SPENT)}


def _plain(frame: DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON has them, None for what is not on record."""
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
    rows = []
    for place, at in enumerate(record.round_ids, 1):
        so_far = entries.loc[entries["round"] <= at, list(SPENT)]
        point = {"round": at, **so_far.sum(skipna=False, min_count=1)}
        for key in SCORES:
            values = record.series(key)[:place]
            point |= {key: values[-1], f"smooth_{key}": smoothed(values, window)}
        rows.append(point)
    columns = ["round", *SPENT, *SCORES, *(f"smooth_{key}" for key in SCORES)]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], float))


def smoothed(values: Sequence[float], window: int = WINDOW) -> float | None:
    """Return the mean of the last values; None before there are `window` of them."""
    last = [value for value in map(real, values[-window:]) if value is not None]
    return sum(last) / window if len(last) == window else None


def compare(runs: Sequence[Run], target: float | None) -> dict[str, Any]:
    """Put runs side by side.

    Parameters
    ----------
    runs : sequence of Run
        Two or more.
    target : float or None
        Validation accuracy to reach; None: the lowest of the runs' best ones.

    Returns
    -------
    dict
        JSON: ``target``, ``given``, ``smoothing``, ``warning``, ``runs`` each with its figures
        and where it ``reached`` the target (None: never), and the ``settings`` that differ.
    """
    best = [run.best for run in runs if run.best is not None]
    goal = target if target is not None else min(best, default=None)
    return {
        "target": goal,
        "given": target is not None,
        "smoothing": SMOOTHING,
        "warning": warning(runs),
        "groups": groups(runs),
        "runs": [
            {
                "name": run.name,
                **run.figures,
                "best_validation": run.best,
                "reached": run.first(goal),
                "damaged": run.damaged,
            }
            for run in runs
        ],
        "settings": differences(runs),
    }


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, by key, with each run's value; None: it has none.

    Names and folders of the runs themselves are left out, and runs whose settings are lost are not
    compared by them.
    """
    known = [run for run in runs if run.settings]
    keys = dict.fromkeys(key for run in known for key in run.settings if key not in NAMES)
    return {
        key: [run.settings.get(key) for run in runs]
        for key in keys
        if not _same([run.settings.get(key) for run in known])
    }


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """Return the places of runs that differ in nothing but their seed, group by group."""
    found: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        others = {k: v for k, v in run.settings.items() if k not in (*NAMES, "run.seed")}
        found.setdefault(json.dumps(others, sort_keys=True), []).append(place)
    return list(found.values())


def _same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def warning(runs: Sequence[Run]) -> str:
    """Say in one line why runs are not to be compared; empty if they are."""
    differ, lines = differences(runs), []
    seeds = [sorted(str(runs[k].settings.get("run.seed")) for k in group) for group in groups(runs)]
    # Where every group has the same seeds, their means may be compared.
    repeated = len(seeds) > 1 and _same(seeds)
    for what, keys in ALIKE.items():
        if what == "seed" and repeated:
            continue
        named = [key for key in keys if key in differ]
        seen = [run.found[what] for run in runs if what in run.found and run.figures["data"]]
        if named or (seen and not _same(seen)):
            lines.append(f"{what} ({', '.join(named) or 'as found by the sites'})")
    lost = [run.name for run in runs if not run.settings]
    found = [f"not comparable: the runs differ in {'; '.join(lines)}"] if lines else []
    found += [f"settings unknown: {', '.join(lost)}"] if lost else []
    return "; ".join(found)


def main() -> int:
    """Answer a question of `llm-qfl compare`; 2 for a user's mistake, the last line of stderr."""
    from reporting.comparison_page import build_comparison

    question = json.load(sys.stdin)
    try:
        runs = [read_run(Path(folder)) for folder in question["folders"]]
        found = compare(runs, question["target"])
        page = build_comparison(runs, found)
        write_bytes(Path(question["out"]), page.encode("utf-8", "backslashreplace"))
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"cannot use {str(problem.filename)!r}: {problem.strerror}", file=sys.stderr)
        return 1
    print(json.dumps({**found, "points": [_plain(run.points) for run in runs]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
