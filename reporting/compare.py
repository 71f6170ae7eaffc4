"""Puts runs side by side: ``python -m reporting.compare``, which reads a question in JSON.

Reads results folders alone. `llm-qfl compare` prints what comes out; the picture is a page of
`reporting.comparison_page`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import UserError, write_bytes
from reporting.compared_run import SMOOTHING, Run, json_rows, read_run

NAMES = ("run.name", "run.output", "run.folder", "run.report")
"""Settings that say nothing of what a run does."""

ALIKE = {
    "data": ("data.source", "data.path", "data.test_path", "data.per_site", "data.task",
             "data.hub_name", "data.hub_config", "data.hub_revision", "data.hub_splits",
             "data.options", "data.kind", "data.text_column", "data.label_column", "data.labels",
             "data.label_pattern", "data.encoding"),
    "rows": ("data.train_rows", "data.test_rows", "data.test_fraction", "data.val_fraction",
             "data.server_rows"),
    "partition": ("run.clients", "data.partition", "data.alpha", "data.partition_column",
                  "data.label_noise", "data.noisy_clients", "data.heterogeneity"),
    "seed": ("run.seed",),
    "judge": ("evaluation.mode", "evaluation.backend"),
}  # fmt: skip
"""Settings in which runs must be alike to be compared, by what they are."""


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
    print(json.dumps({**found, "points": [json_rows(run.points) for run in runs]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
