"""Which features reach furthest through few qubits: encoders, projections, qubits, uploads.

``python -m bench.features --data FOLDER [--only tweets|dna] [--seeds 0 1 2] [--store FOLDER]
[--out FILE.jsonl]``. Every case is a whole federated run without distillation, all clients
training the same number of steps; the encoders of one seed share one adapter that the clients
have trained together (FFA-LoRA). Tweets: 3 clients, 1,500 rows in all, 3,000 of the official test
rows; DNA: 4 clients, 2,000 rows, all test rows. Runs that are in FILE already are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.published import ROOT, run_once
from bench.tables import kept_runs, mean_spread
from federation import append_jsonl, parse_run

COMMON = (
    "agent.kind=all",
    "distill.weight=0",
    "llm.federated=ffa",
    "llm.rounds=4",
    "llm.epochs=2",
    "llm.learning_rate=0.004",
    "train.learning_rate=0.05",
    "train.steps=20",
    "run.rounds=20",
    "stop.patience=5",
)

DATA = {
    "tweets": (
        "tweets.toml",
        "tweet_eval",
        ("data.train_rows=1500", "data.test_rows=3000"),
        {
            "base MiniLM": ("features.kind=embedding",),
            "shared MiniLM": ("features.kind=embedding", "features.encoder=shared"),
        },
    ),
    "dna": (
        "human-vs-worm.toml",
        "human_vs_worm",
        ("data.train_rows=2000", "run.clients=4"),
        {
            "4-mers": (),
            "base dna-tiny": ("features.kind=embedding",),
            "shared dna-tiny": ("features.kind=embedding", "features.encoder=shared"),
        },
    ),
}
"""By data set: configuration, folder, settings, and the encoders."""


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    data: str
    features: str
    projection: str
    qubits: int
    uploads: int


def cases(only: str | None) -> Iterator[Case]:
    """Yield the grid, the encoder outermost."""
    for name, (_, _, _, encoders) in DATA.items():
        if only in (None, name):
            grid = itertools.product(encoders, ("lda", "pca", "random"), (4, 8), (1, 2))
            for features, projection, qubits, uploads in grid:
                yield Case(name, features, projection, qubits, uploads)


def assignments(case: Case) -> tuple[str, tuple[str, ...]]:
    """Return a case's configuration file and settings."""
    config, _, given, encoders = DATA[case.data]
    # Raw embeddings are many and noisy beside so few rows; two of the shared adapter's matter.
    noisy = case.data == "tweets" and case.features.startswith("base")
    shrinkage = 0.9 if case.projection == "lda" and noisy else 0.1
    return config, (
        *COMMON,
        *given,
        f"features.shrinkage={shrinkage}",
        *encoders[case.features],
        f"features.projection={case.projection}",
        f"quantum.qubits={case.qubits}",
        f"quantum.uploads={case.uploads}",
    )


def measure(case: Case, data: Path, seed: int, store: str) -> dict[str, Any]:
    """Run one case and return what is kept of it."""
    config, given = assignments(case)
    where = (f"data.path={data / DATA[case.data][1]}", f"run.seed={seed}", f"llm.store={store}")
    summary = run_once(parse_run([ROOT / "config" / config], [*given, *where])[0])
    linear = summary["baselines"]["logistic_projected"]
    return {
        **asdict(case),
        "seed": seed,
        **{key: summary["test"][key] for key in ("accuracy", "macro_recall", "loss")},
        "lr_accuracy": linear["accuracy"],
        "lr_macro_recall": linear["macro_recall"],
        "circuits": summary["ledger"]["circuits"],
        "rounds": summary["rounds"],
    }


def row(case: Case, runs: Sequence[dict[str, Any]]) -> str:
    """Return a case's runs as a Markdown row."""
    keys = ("accuracy", "macro_recall", "loss", "lr_accuracy", "lr_macro_recall")
    cells = [mean_spread([run[key] for run in runs]) for key in keys]
    uploads = {1: "angle", 2: "re-uploaded"}[case.uploads]
    head = (case.data, case.features, case.projection, str(case.qubits), uploads, str(len(runs)))
    return "| " + " | ".join((*head, *cells)) + " |"


HEADER = (
    "| data | features | projection | qubits | encoding | seeds | accuracy | macro-recall | loss | "
    "LR, same features: accuracy | macro-recall |\n" + "|---" * 11 + "|"
)


def main(arguments: list[str]) -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="bench.features", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", choices=tuple(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        parser.error(f"--data {given.data} is no folder; name the one with human_vs_worm/")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        out, store = given.out or Path(folder) / "runs.jsonl", str(given.store or folder)
        print(HEADER, flush=True)
        for case in cases(given.only):
            wanted = asdict(case)
            for seed in given.seeds:
                if not kept_runs(out, {**wanted, "seed": seed}):
                    append_jsonl(out, measure(case, given.data.resolve(), seed, store))
            runs = [run for run in kept_runs(out, wanted) if run["seed"] in given.seeds]
            print(row(case, runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
