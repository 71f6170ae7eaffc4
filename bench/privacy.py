"""What privacy costs in accuracy, on the synthetic demo and on real DNA.

``python -m bench.privacy [--seeds 0 1 2 3 4] [--clients 4 16]``: `config/demo.toml` with equal
weights, all rounds, without privacy, with noise at the server, at each site, and on the moments.
Means over the seeds, and the standard deviation; epsilon at delta 1e-5.

``python -m bench.privacy --dna FOLDER``: human_vs_worm, ten sites of 800 rows (640 to train on),
one step of all rows a round, 60 rounds, with the privacy of single rows: epsilon is of a row's
part in moments and updates together. Rules: bench/REGISTERED.md.
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

DNA = (
    *("data.train_rows=8000", "data.server_rows=2000", "llm.model=none", "distill.weight=0.0"),
    *("features.kind=kmer", "features.k=2", "features.shrinkage=0.6", "quantum.qubits=4"),
    *("train.steps=1", "train.max_steps=1", "train.batch_rows=0", "train.learning_rate=1"),
    *("train.optimizer=descent", "train.schedule=constant", "stop.patience=0", "agent.kind=all"),
    *("aggregation.rule=FedAdam", "aggregation.options=eta=0.1", "run.rounds=60"),
    *("evaluation.prior_correction=none", "evaluation.baselines=false", "run.report=false"),
)
MOMENTS = (
    *("privacy.moment_noise=6", "privacy.moment_clip=0.16", "privacy.seeded=true"),
    "privacy.moment_centre=random-letters",
)
NOISED = ("privacy.unit=row", "privacy.clip=3", "privacy.noise=20.6", "privacy.max_epsilon=4")
DNA_CASES = (
    ("none", ()),
    ("moments alone", MOMENTS),
    ("rows, noise at each site", (*MOMENTS, *NOISED, "privacy.dp=local")),
    (
        "rows, noise of the sum",
        (*MOMENTS, *NOISED, "privacy.dp=summed", "privacy.secure_aggregation=true"),
    ),
)


def row(clients: int, name: str, summaries: Sequence[dict[str, Any]]) -> str:
    """Return the runs of a case as a Markdown row."""
    accuracies = [summary["test"]["accuracy"] for summary in summaries]
    losses = [summary["test"]["loss"] for summary in summaries]
    privacy = summaries[0].get("privacy", {})
    spent = privacy.get("rows") or privacy.get("updates") or privacy.get("moments") or {}
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
    parser.add_argument("--dna", help="folder of human_vs_worm's train.csv and test.csv")
    parser.add_argument("--cases", nargs="+", type=int, help="positions of cases, all by itself")
    chosen = parser.parse_args(words)
    logging.disable(logging.WARNING)
    config = "demo.toml"
    shared: Sequence[str] = ALL_ROUNDS
    cases: Sequence[tuple[str, Sequence[str]]] = CASES
    if chosen.dna:
        config, shared, cases = "human-vs-worm.toml", (*DNA, f"data.path={chosen.dna}"), DNA_CASES
    print(head(("clients", "privacy", "epsilon", "test accuracy", "test loss")))
    for clients in [10] if chosen.dna else chosen.clients:
        for place, (name, given) in enumerate(cases):
            if place not in (chosen.cases or range(len(cases))):
                continue
            summaries = []
            for seed in chosen.seeds:
                own = (f"run.seed={seed}", f"run.clients={clients}")
                settings, _ = configured(config, [*shared, *given, *own])
                summaries.append(run_once(settings))
                print(f"{name}, seed {seed}: {summaries[-1]['test']['accuracy']}", file=sys.stderr)
            print(row(clients, name, summaries), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
