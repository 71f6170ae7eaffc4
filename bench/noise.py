"""Training under a real device's noise: circuits and shots to reach an accuracy.

``python -m bench.noise --data FOLDER [--seeds 0 1 2] [--only spsa ...]``, with FOLDER holding
``human_vs_worm/``: 10 clients with 2,000 rows of real DNA in all, 4 qubits, Aer with the noise of
FakeBrisbane, 256 shots; the server judges under the same noise. A run ends when the accuracy on the
server's 500 validation rows reaches the target, and only then are the official test rows scored,
once.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.published import ROOT, run_once
from core import parse_run

COMMON = (
    "evaluation.baselines=false",
    "agent.kind=all",
    "run.rounds=15",
    "stop.min_rounds=1",
)
"""On top of `config/noisy-dna.toml`."""

FIRST, HIGHER = "stop.target_accuracy=0.88", "stop.target_accuracy=0.94"
"""Validation accuracies that end a run; 500 rows know an accuracy to 1.5 points."""

SHIFT = ("train.optimizer=parameter-shift", "train.steps=2", "train.batch_rows=4")
COBYLA = ("train.optimizer=cobyla", "train.steps=100", "train.max_steps=100")

RUNS = {
    "spsa": (FIRST,),
    "parameter-shift": (FIRST, *SHIFT, "train.learning_rate=0.1"),
    # It tries P + 2 points before it moves: each round costs 16,360 circuits, whatever comes of it.
    "cobyla": (FIRST, *COBYLA, "train.learning_rate=0.5", "run.rounds=3"),
    "spsa, 2 rounds exact first": (FIRST, "train.warm_rounds=2"),
    "spsa, to 0.94": (HIGHER,),
    "spsa, to 0.94, 2 rounds exact first": (HIGHER, "train.warm_rounds=2"),
}

HEADER = (
    "| optimiser | seed | rounds | validation accuracy | test accuracy | jobs | circuits | shots | "
    "server's circuits | seconds |\n" + "|---" * 10 + "|"
)


def measure(name: str, data: Path, seed: int, store: str) -> dict[str, Any]:
    """Run one case and return its summary, with its wall seconds."""
    given = [f"data.path={data / 'human_vs_worm'}", f"run.seed={seed}", f"llm.store={store}"]
    settings, _ = parse_run([ROOT / "config" / "noisy-dna.toml"], [*COMMON, *RUNS[name], *given])
    began = time.monotonic()
    summary = run_once(settings)
    return {**summary, "wall": time.monotonic() - began}


def row(name: str, seed: int, summary: dict[str, Any]) -> str:
    """Return a summary as a Markdown row."""
    ledger, judge = summary["ledger"], summary["judge"]
    cells = (
        name,
        str(seed),
        str(summary["rounds"]),
        f"{summary['validation']['accuracy']:.3f}",
        f"{summary['test']['accuracy']:.4f}",
        f"{ledger['jobs']:,}",
        f"{ledger['circuits']:,}",
        f"{ledger['shots']:,}",
        f"{judge['circuits']:,}",
        f"{summary['wall']:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str]) -> int:
    """Print the table, and the mean circuits of each optimiser."""
    parser = argparse.ArgumentParser(prog="bench.noise", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=tuple(RUNS), nargs="+", default=list(RUNS))
    parser.add_argument("--store", type=Path, help="keep teachers there; default: a temporary one")
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        parser.error(f"--data {given.data} is no folder; name the one with human_vs_worm/")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print(HEADER, flush=True)
    means = []
    with tempfile.TemporaryDirectory() as temporary:  # all cases of one seed share their teachers
        store = str(given.store.resolve() if given.store else temporary)
        for name in given.only:
            found = []
            for seed in given.seeds:
                found.append(measure(name, given.data.resolve(), seed, store))
                print(row(name, seed, found[-1]), flush=True)
            means.append((name, found))
    for name, found in means:
        circuits = statistics.mean(each["ledger"]["circuits"] for each in found)
        accuracy = statistics.mean(each["test"]["accuracy"] for each in found)
        print(f"{name}: mean {circuits:,.0f} circuits, test accuracy {accuracy:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
