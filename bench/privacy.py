"""What privacy costs in accuracy, on the synthetic demo.

``python -m bench.privacy [--seeds 0 1 2 3 4] [--clients 4 16]``: `config/demo.toml` with equal
weights, all rounds, without privacy, with noise at the server, at each site, and on the moments.
Means over the seeds, and the standard deviation; epsilon at delta 1e-5.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from bench.grid import run_once
from bench.tables import configured, head, mean_spread
from bench.tables import row as table_row

ALL_ROUNDS = (
    "aggregation.rule=uniform",
    "run.report=false",
    "stop.rule=none",
    "stop.tau=0.02",
    "stop.min_rounds=2",
    "evaluation.keep=last",
    "data.train_rows=1600",
)
CASES = (
    ("none", ()),
    ("central, clip 1, z = 0.5", ("privacy.dp=central", "privacy.noise=0.5")),
    ("central, clip 1, z = 1", ("privacy.dp=central", "privacy.noise=1")),
    ("central, clip 1, z = 4", ("privacy.dp=central", "privacy.noise=4")),
    ("local, clip 1, z = 1", ("privacy.dp=local", "privacy.noise=1")),
    ("moments, longest row 0.2, z = 4", ("privacy.moment_noise=4", "privacy.moment_clip=0.2")),
    ("moments, longest row 0.2, z = 16", ("privacy.moment_noise=16", "privacy.moment_clip=0.2")),
)


def row(clients: int, name: str, summaries: Sequence[dict[str, Any]]) -> str:
    """Return the runs of a case as a Markdown row."""
    accuracies = [summary["test"]["accuracy"] for summary in summaries]
    losses = [summary["test"]["loss"] for summary in summaries]
    privacy = summaries[0].get("privacy", {})
    spent = privacy.get("updates") or privacy.get("moments") or {}
    epsilon = f"{spent['epsilon']:.1f}" if spent else "-"
    cells = (
        str(clients),
        name,
        epsilon,
        mean_spread(accuracies),
        mean_spread(losses),
    )
    return table_row(cells)


def main(words: Sequence[str]) -> int:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--clients", nargs="+", type=int, default=[4, 16])
    chosen = parser.parse_args(words)
    logging.disable(logging.WARNING)
    print(head(("clients", "privacy", "epsilon", "test accuracy", "test loss")))
    for clients in chosen.clients:
        for name, given in CASES:
            summaries = []
            for seed in chosen.seeds:
                words = (f"run.seed={seed}", f"run.clients={clients}")
                settings, _ = configured("demo.toml", [*ALL_ROUNDS, *given, *words])
                summaries.append(run_once(settings))
            print(row(clients, name, summaries), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
