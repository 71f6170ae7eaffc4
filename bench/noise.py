"""Training under a real device's noise: circuits and shots to reach an accuracy.

``python -m bench.noise --data FOLDER [--seeds 0 1 2] [--only spsa ...]``, with FOLDER holding
``human_vs_worm/``: 10 clients with 2,000 rows of real DNA in all, 4 qubits, Aer with the noise of
FakeBrisbane, 256 shots; the server scores under the same noise. A run ends when the accuracy on the
server's 500 validation rows reaches the target, and only then are the official test rows scored,
once.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.grid import run_once
from bench.tables import arguments, configured, head, sites_store
from bench.tables import row as table_row

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

HEADER = head(
    (
        *("optimiser", "seed", "rounds", "validation accuracy", "test accuracy", "jobs"),
        *("circuits", "shots", "server's circuits", "seconds"),
    )
)


def measure(name: str, data: Path, seed: int, store: str) -> dict[str, Any]:
    """Run one case and return its summary, with its wall seconds."""
    given = [f"data.path={data / 'human_vs_worm'}", f"run.seed={seed}", f"llm.store={store}"]
    settings, _ = configured("noisy-dna.toml", [*COMMON, *RUNS[name], *given])
    began = time.monotonic()
    summary = run_once(settings)
    return {**summary, "wall": time.monotonic() - began}


def row(name: str, seed: int, summary: dict[str, Any]) -> str:
    """Return a summary as a Markdown row."""
    ledger, server = summary["ledger"], summary["judge"]
    cells = (
        name,
        str(seed),
        str(summary["rounds"]),
        f"{summary['validation']['accuracy']:.3f}",
        f"{summary['test']['accuracy']:.4f}",
        f"{ledger['jobs']:,}",
        f"{ledger['circuits']:,}",
        f"{ledger['shots']:,}",
        f"{server['circuits']:,}",
        f"{summary['wall']:.0f}",
    )
    return table_row(cells)


def main(given: list[str]) -> int:
    """Print the table, and the mean circuits of each optimiser."""
    only = {"--only": {"choices": tuple(RUNS), "nargs": "+", "default": list(RUNS)}}
    chosen = arguments("bench.noise", __doc__, "human_vs_worm", given, only, seeds=[0, 1, 2])
    print(HEADER, flush=True)
    means = []
    with sites_store(chosen.store) as store:  # all cases of one seed share their teachers
        for name in chosen.only:
            found = []
            for seed in chosen.seeds:
                found.append(measure(name, chosen.data, seed, store))
                print(row(name, seed, found[-1]), flush=True)
            means.append((name, found))
    for name, found in means:
        circuits = statistics.mean(each["ledger"]["circuits"] for each in found)
        accuracy = statistics.mean(each["test"]["accuracy"] for each in found)
        print(f"{name}: mean {circuits:,.0f} circuits, test accuracy {accuracy:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
