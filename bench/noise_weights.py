"""Weights for unequal devices: rows, what each device is worth, and two controls.

``python -m bench.noise_weights --data FOLDER [--seeds 0 1 2 3 4] [--sets demo dna] [--out FILE]``:
`config/mixed-backends.toml`, three clients of six on the exact simulator and three on noisy
devices, everybody training in every round, on the embedded data and on real DNA.

* ``rows``: FedAvg's weights.
* ``noise``: ``aggregation.weighting = noise``.
* ``permuted``: the same factors, dealt out to the sites at random: what unequal weights do alone.
* ``exact only``: the noisy sites weigh nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import llm_qfl
from bench.tables import OUT, ROOT, arguments, head, store
from bench.tables import row as table_row
from strategies.aggregations.weighted import weighted
from strategies.updates import Arrays, Parameters, Updates, Weights

COMMON = {
    "agent.kind": "all",
    "distill.weight": 0.0,
    "llm.model": "none",
    "stop.patience": 0,
    "evaluation.baselines": False,
    "run.report": False,
}
"""On top of `config/mixed-backends.toml`."""

LINES = ("rows", "noise", "permuted", "exact only")
Rule = Callable[[Updates, Weights, Arrays], Parameters]


def rule_of(line: str, seed: int) -> Rule:
    """Return the aggregation of a line; all but ``rows`` are given the noise's weights."""
    order = np.random.default_rng(seed).permutation(6)

    def aggregate(updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
        if line == "permuted" and len(weights) == len(order):
            weights = weights[order]
        if line == "exact only":
            weights = np.where(weights > weights.max() / 2, weights, 0.0)
        return weighted(updates, weights, reference)

    return aggregate


def measure(name: str, line: str, data: Path, seed: int) -> dict[str, Any]:
    """Run one line of a set once."""
    given: dict[str, Any] = {**COMMON, "run.seed": seed}
    if line != "rows":
        given["aggregation.weighting"] = "noise"
    if name == "dna":
        given |= {"data.source": "genomic", "data.path": str(data / "human_vs_worm")}
    if line not in ("rows", "noise"):
        given["aggregation"] = rule_of(line, seed)
    began = time.monotonic()
    result = llm_qfl.run(ROOT / "config" / "mixed-backends.toml", **given)
    rounds, clients = result.rounds, result.clients
    return {
        "set": name,
        "line": line,
        "seed": seed,
        "accuracy": rounds.accuracy.tolist(),
        "loss": rounds.loss.tolist(),
        "circuits": rounds.circuits_total.tolist(),
        "test": result.summary["test"]["accuracy"],
        "busy": clients.groupby("client").busy_seconds.sum().round(2).tolist(),
        "seconds": time.monotonic() - began,
    }


def circuits_to(run: dict[str, Any], target: float) -> float:
    """Return the circuits until the validation accuracy is first there; infinite if never."""
    pairs = zip(run["accuracy"], run["circuits"], strict=True)
    return next((float(spent) for found, spent in pairs if found >= target), float("inf"))


def summarised(runs: Sequence[dict[str, Any]], name: str) -> list[str]:
    """Return a set's table: each line against rows, paired by seed."""
    found = {(one["line"], one["seed"]): one for one in runs if one["set"] == name}
    seeds = sorted({seed for line, seed in found if line == "rows"})
    table = []
    for line in LINES:
        both = [seed for seed in seeds if (line, seed) in found]
        if not both:
            continue
        tests = [100 * found[line, seed]["test"] for seed in both]
        gains = [100 * (found[line, s]["test"] - found["rows", s]["test"]) for s in both]
        spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
        targets = {seed: found["rows", seed]["accuracy"][-1] for seed in both}
        needed = sum(circuits_to(found[line, s], targets[s]) for s in both)
        base = sum(circuits_to(found["rows", s], targets[s]) for s in both)
        losses = [found[line, seed]["loss"][-1] for seed in both]
        cells = (
            *(name, line, str(len(both)), f"{statistics.mean(tests):.1f}"),
            *(f"{statistics.mean(gains):+.1f} ± {spread:.1f}", f"{min(gains):+.1f}"),
            *(f"{needed / base:.2f}", f"{statistics.mean(losses):.3f}"),
        )
        table.append(table_row(cells))
    return table


HEADER = head(
    (
        *("set", "weights", "seeds", "test accuracy, %", "to rows, points (deviation)"),
        *("worst seed", "circuits to rows' last accuracy, of rows'", "last validation loss"),
    )
)


def main(given: Sequence[str] | None = None) -> int:
    """Run what was requested and print the tables."""
    options: dict[str, dict[str, Any]] = {
        "--sets": {"nargs": "+", "choices": ("demo", "dna"), "default": ["demo", "dna"]},
        "--only": {"nargs": "+", "choices": LINES, "default": list(LINES)},
        **OUT,
    }
    args = arguments(
        "bench.noise_weights", __doc__, "human_vs_worm", sys.argv[1:] if given is None else given,
        options,
    )  # fmt: skip
    runs = []
    for name in args.sets:
        for seed in args.seeds:
            for line in args.only:
                runs.append(store(args.out, measure(name, line, args.data, seed)))
                print(name, line, seed, f"{runs[-1]['test']:.3f}", file=sys.stderr, flush=True)
    print(HEADER)
    for name in args.sets:
        print("\n".join(summarised(runs, name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
