"""Which features reach furthest through few qubits: encoders, projections, qubits, uploads.

``python -m bench.features --data FOLDER [--only tweets|dna] [--qubits 4 8] [--projections lda pca
random] [--seeds 0 1 2] [--store FOLDER] [--out FILE.jsonl]``. Every case is a whole federated run
without distillation, all clients training, 20 steps a round at rate 0.05, until the validation loss
has not fallen for 5 of at most 20 rounds. The encoders of one seed share one adapter that the
clients have trained together (FFA-LoRA) on the very rows that become features. Tweets: 3 clients,
1,500 rows in all, 3,000 of the official test rows, classes weighted (in the logistic regression
they are not); DNA: 4 clients, 2,000 rows, all test rows. With two uploads features are clipped at 6
sigma instead of 3: each upload then turns half as far, and both together as far as one. Pick by the
server's validation rows; the test columns are for the report. Runs that FILE holds are not run
again.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.grid import run_once
from bench.tables import ONLY, OUT, arguments, configured, mean_spread, once, sites_store
from bench.tables import head as table_head
from bench.tables import row as table_row

COMMON = (
    "agent.kind=all",
    "distill.weight=0",
    "llm.federated=ffa",
    "llm.rounds=4",
    "llm.epochs=2",
    "llm.rows=0",
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


PROJECTIONS = ("lda", "pca", "random")
QUBITS = (4, 8)


def cases(
    only: str | None, projections: Sequence[str] = PROJECTIONS, qubits: Sequence[int] = QUBITS
) -> Iterator[Case]:
    """Yield the grid, the encoder outermost."""
    for name, (_, _, _, encoders) in DATA.items():
        if only in (None, name):
            grid = itertools.product(encoders, projections, qubits, (1, 2))
            for features, projection, number, uploads in grid:
                yield Case(name, features, projection, number, uploads)


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
        f"features.clip={3 * case.uploads}",
    )


def given_by(case: Case, seed: int) -> dict[str, Any]:
    """Return what identifies a run: the case, the seed, and every setting that it sets."""
    config, given = assignments(case)
    sets = configured(config, [*given, f"run.seed={seed}"])[1]
    return {**asdict(case), "seed": seed, "given": sets}


def measure(case: Case, data: Path, seed: int, store: str) -> dict[str, Any]:
    """Run one case and return what is kept of it."""
    config, given = assignments(case)
    where = (f"data.path={data / DATA[case.data][1]}", f"run.seed={seed}", f"llm.store={store}")
    summary = run_once(configured(config, [*given, *where])[0])
    linear = summary["baselines"]["logistic_projected"]
    return {
        **given_by(case, seed),
        "validation_loss": summary["validation"]["loss"],
        "validation_accuracy": summary["validation"]["accuracy"],
        **{key: summary["test"][key] for key in ("accuracy", "macro_recall", "loss")},
        "lr_accuracy": linear["accuracy"],
        "lr_macro_recall": linear["macro_recall"],
        "circuits": summary["ledger"]["circuits"],
    }


FIGURES = {
    "validation_loss": "validation loss",
    "validation_accuracy": "accuracy",
    "accuracy": "test accuracy",
    "macro_recall": "macro-recall",
    "loss": "loss",
    "lr_accuracy": "LR, same features: accuracy",
    "lr_macro_recall": "macro-recall",
}


def row(case: Case, runs: Sequence[dict[str, Any]]) -> str:
    """Return a case's runs as a Markdown row."""
    uploads = {1: "angle", 2: "re-uploaded"}[case.uploads]
    named = (case.data, case.features, case.projection, str(case.qubits), uploads, str(len(runs)))
    circuits = sum(run["circuits"] for run in runs) / len(runs)
    figures = [mean_spread([run[key] for run in runs]) for key in FIGURES]
    return table_row((*named, *figures, f"{circuits / 1e6:,.0f}"))


HEADER = (
    *("data", "features", "projection", "qubits", "encoding", "seeds"),
    *FIGURES.values(),
    "circuits, millions",
)


def main(given: list[str]) -> int:
    """Run what is missing and print the table."""
    grid: dict[str, dict[str, Any]] = {
        "--qubits": {"type": int, "nargs": "+", "choices": QUBITS, "default": QUBITS},
        "--projections": {"nargs": "+", "choices": PROJECTIONS, "default": PROJECTIONS},
    }
    chosen = arguments("bench.features", __doc__, "human_vs_worm", given, {**ONLY, **OUT, **grid})
    print(table_head(HEADER), flush=True)
    with sites_store(chosen.store) as store:
        for case in cases(chosen.only, chosen.projections, chosen.qubits):
            runs = [
                once(
                    chosen.out,
                    case,
                    given_by(case, seed),
                    partial(measure, case, chosen.data, seed, store),
                )
                for seed in chosen.seeds
            ]
            print(row(case, runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
