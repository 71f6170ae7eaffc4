"""Puts runs side by side: ``python -m reporting.compare``, asked in JSON on standard input.

Reads results folders alone. `llm-qfl compare` prints what comes out; the picture is a page of
`reporting.comparison_page`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core import DataError, UserError, explain, wilson_interval, write_bytes
from reporting.compared_run import Point, Run
from reporting.fedavg_reference import History, prices, real
from reporting.formatting import error, status
from reporting.record import Json, Record, read_record

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


# --- reading --------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """Read a run.

    Parameters
    ----------
    folder : Path
        Its results folder; of a run that is not finished, or is damaged, too.

    Raises
    ------
    UserError
        If it is no run.
    """
    try:
        record = read_record(folder)
    except DataError:
        raise UserError(_no_run(folder)) from None
    tree = record.config.get("settings") or {}
    return Run(
        name=record.name,
        figures=_figures(record),
        settings={f"{s}.{k}": v for s, part in tree.items() for k, v in part.items()},
        facts=_facts(record),
        points=tuple(_points(record)),
        damaged=record.damaged,
    )


def _no_run(folder: Path) -> str:
    given = f"no run in {str(folder)!r}"
    return explain(given, "the results folders of two or more runs", "name others")


def _figures(record: Record) -> dict[str, Any]:
    summary, ledger = record.summary, record.ledger
    test, baselines = summary.get("test") or {}, summary.get("baselines") or {}
    totals: Json = ledger.get("totals") or summary.get("ledger") or {}
    busy = _sum(totals, ("train_seconds", "llm_seconds", "queue_seconds"))
    idle = real(totals.get("idle_seconds"))
    span = None if busy is None or idle is None else busy + idle
    return {
        "status": status(record),
        "error": error(record),
        "agent": record.prepared.get("agent"),
        "data": record.prepared.get("data"),
        "test_accuracy": real(test.get("accuracy")),
        "test_interval": wilson_interval(test.get("accuracy"), test.get("rows")),
        "test_loss": real(test.get("loss")),
        **{
            name: real((baselines.get(key) or {}).get("accuracy"))
            for name, key in (("majority", "majority"), ("linear", "logistic_projected"))
        },
        "rounds": len(record.round_ids),
        "circuits": real(totals.get("circuits")),
        "simulated": real(summary.get("simulated_circuits")),
        "spend": _spend(record),
        "idle_share": idle / span if span and idle is not None else None,
        "bytes": _sum(totals, ("bytes_up", "bytes_down")),
        "seconds": real((summary.get("seconds") or {}).get("total")),
    }


def _sum(costs: Json, keys: Iterable[str]) -> float | None:
    values = [real(costs.get(key)) for key in keys]
    return None if None in values else sum(value for value in values if value is not None)


def _spend(record: Record) -> float | None:
    """Return all circuits of the ledger times their prices."""
    price = prices(record, History.of(record))
    each = record.ledger.get("clients") or {}
    counts = {int(k): real(cost.get("circuits")) for k, cost in each.items()}
    if not counts or None in counts.values() or not set(counts) <= set(price):
        return None
    return sum((count or 0.0) * price[k] for k, count in counts.items())


def _facts(record: Record) -> dict[str, Any]:
    """Return what was seen of the data, which settings do not tell of files."""
    ready = record.prepared
    rows = [
        [client.get(key) for key in ("train_rows", "val_rows", "test_rows", "class_rows")]
        for client in ready.get("clients") or []
    ]
    judged = [ready.get("validation_rows"), ready.get("test_rows")]
    return {"data": [ready.get("data"), ready.get("classes")], "rows": [judged, rows]}


def _points(record: Record) -> Iterable[Point]:
    entries = record.ledger.get("entries") or record.clients
    accuracies, losses = record.series("accuracy"), record.series("loss")
    window = min(WINDOW, len(record.round_ids))
    for place, at in enumerate(record.round_ids):
        spent = [e for e in entries if (real(e.get("round")) or 0) <= at]
        yield Point(
            round=at,
            circuits=_total(spent, ("circuits",)),
            idle_seconds=_total(spent, ("idle_seconds",)),
            bytes=_total(spent, ("bytes_up", "bytes_down")),
            accuracy=real(accuracies[place]),
            loss=real(losses[place]),
            smooth_accuracy=smoothed(accuracies[: place + 1], window),
            smooth_loss=smoothed(losses[: place + 1], window),
        )


def _total(entries: Sequence[Json], keys: Sequence[str]) -> float | None:
    values = [_sum(entry, keys) for entry in entries]
    return None if not values or None in values else sum(v for v in values if v is not None)


def smoothed(values: Sequence[float], window: int = WINDOW) -> float | None:
    """Return the mean of the last values; None before there are `window` of them."""
    last = [real(value) for value in values[-window:]]
    known = [value for value in last if value is not None]
    return sum(known) / window if len(known) == window else None


# --- comparing --------------------------------------------------------------------------------


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
    goal = target
    if goal is None:
        goal = min((run.best for run in runs if run.best is not None), default=None)
    return {
        "target": goal,
        "given": target is not None,
        "smoothing": SMOOTHING,
        "warning": warning(runs),
        "groups": [list(members) for members in groups(runs)],
        "runs": [
            {
                "name": run.name,
                **run.figures,
                "best_validation": run.best,
                "reached": where,
                "damaged": run.damaged,
            }
            for run, where in ((run, _reached(run, goal)) for run in runs)
        ],
        "settings": differences(runs),
    }


def _reached(run: Run, goal: float | None) -> dict[str, Any] | None:
    point = None if goal is None else run.first(goal)
    if point is None:
        return None
    return {key: getattr(point, key) for key in ("round", "circuits", "idle_seconds", "bytes")}


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
        kept = {k: v for k, v in run.settings.items() if k not in (*NAMES, "run.seed")}
        found.setdefault(json.dumps(kept, sort_keys=True), []).append(place)
    return list(found.values())


def _same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def warning(runs: Sequence[Run]) -> str:
    """Say in one line why runs are not to be compared; empty if they are."""
    differ = differences(runs)
    found = []
    seeds = [sorted(str(runs[k].settings.get("run.seed")) for k in group) for group in groups(runs)]
    repeated = len(seeds) > 1 and _same(
        seeds
    )  # every group has the same seeds: their means may be compared
    for what, keys in ALIKE.items():
        if what == "seed" and repeated:
            continue
        named = [key for key in keys if key in differ]
        seen = [run.facts[what] for run in runs if what in run.facts and _known(run)]
        if named or not (len(seen) < 2 or _same(seen)):
            found.append(f"{what} ({', '.join(named) or 'as found by the sites'})")
    lost = [run.name for run in runs if not run.settings]
    told = [f"not comparable: the runs differ in {'; '.join(found)}"] if found else []
    told += [f"settings unknown: {', '.join(lost)}"] if lost else []
    return "; ".join(told)


def _known(run: Run) -> bool:
    return run.figures["data"] is not None


def main() -> int:
    """Answer a question of `llm-qfl compare`; 2 for a user's mistake, told in the last line."""
    from reporting.comparison_page import build_comparison

    asked = json.load(sys.stdin)
    try:
        runs = [read_run(Path(folder)) for folder in asked["folders"]]
        found = compare(runs, asked["target"])
        page = build_comparison(runs, found)
        write_bytes(Path(asked["out"]), page.encode("utf-8", "backslashreplace"))
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"cannot use {str(problem.filename)!r}: {problem.strerror}", file=sys.stderr)
        return 1
    print(json.dumps({**found, "points": [[asdict(p) for p in run.points] for run in runs]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
