"""Real DNA and real tweets, ours beside the published configuration and the linear baselines.

``python -m bench.published --data FOLDER [--only dna|tweets] [--seeds 0 1 ...]``, with FOLDER
holding ``human_vs_worm/`` and ``tweet_eval/``. Runs the shipped configurations through the same
ServerApp, strategy and ClientApp in one process and prints a Markdown row for each run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.grid import run_once
from bench.tables import ONLY, arguments, configured, head, sites_store
from bench.tables import row as table_row
from core import Settings

PUBLISHED = (
    "features.projection=pca",
    "quantum.block=paper",
    "train.optimizer=cobyla",
    "train.steps=10",
    "train.learning_rate=1.0",
    "distill.weight=0",
    "aggregation.rule=uniform",
    "agent.rule=adaptive",
    "run.rounds=10",
)
"""What the published code runs, on real features: it has no KL term, and COBYLA starts at 10."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    data: str
    label: str
    config: str
    folder: str
    overrides: tuple[str, ...] = ()


CASES = (
    Case("dna", "ours (`config/human-vs-worm.toml`)", "human-vs-worm.toml", "human_vs_worm"),
    Case(
        "dna",
        "ours with PCA instead of LDA",
        "human-vs-worm.toml",
        "human_vs_worm",
        ("features.projection=pca",),
    ),
    Case(
        "dna",
        "published configuration: PCA, `paper` block, COBYLA, ratio rule, no KL",
        "human-vs-worm.toml",
        "human_vs_worm",
        PUBLISHED,
    ),
    Case("tweets", "ours (`config/tweets.toml`)", "tweets.toml", "tweet_eval"),
    Case(
        "tweets",
        "ours without distillation",
        "tweets.toml",
        "tweet_eval",
        ("distill.weight=0",),
    ),
    Case(
        "tweets",
        "published configuration: PCA, `paper` block, COBYLA, ratio rule, no KL",
        "tweets.toml",
        "tweet_eval",
        (*PUBLISHED, "features.shrinkage=0.1", "train.class_weights=none"),
    ),
)

HEADER = head(
    (
        *("data", "run", "seed", "accuracy", "macro-F1", "macro-recall", "loss"),
        "LR, same features: acc / macro-recall",
        "LR, all features: acc / macro-recall",
        *("majority acc", "teachers, own validation rows", "circuits", "rounds (kept)"),
    )
)


def settings_of(case: Case, given: Sequence[str] = ()) -> Settings:
    """Return a case's settings; later assignments win."""
    return configured(case.config, [*case.overrides, *given])[0]


def measure(case: Case, data: Path, seed: int, store: str) -> dict[str, Any]:
    """Run one case and return its summary."""
    given = [f"data.path={data / case.folder}", f"run.seed={seed}", f"llm.store={store}"]
    return run_once(settings_of(case, given))


def row(case: Case, seed: int, summary: dict[str, Any]) -> str:
    """Return a summary as a Markdown row."""
    test, base = summary["test"], summary["baselines"]
    teachers = summary["teachers"]
    mean = sum(teacher["accuracy"] for teacher in teachers) / len(teachers)
    pairs = [
        f"{base[name]['accuracy']:.4f} / {base[name]['macro_recall']:.4f}"
        for name in ("logistic_projected", "logistic_full")
    ]
    cells = (
        case.data,
        case.label,
        str(seed),
        *(f"{test[key]:.4f}" for key in ("accuracy", "macro_f1", "macro_recall", "loss")),
        *pairs,
        f"{base['majority']['accuracy']:.4f}",
        f"{mean:.4f}",
        f"{summary['ledger']['circuits']:,}",
        f"{summary['rounds']} ({summary['best_round']})",
    )
    return table_row(cells)


def main(given: list[str]) -> int:
    """Print the table."""
    chosen = arguments("bench.published", __doc__, "human_vs_worm", given, ONLY, seeds=[0])
    print(HEADER, flush=True)
    with sites_store(chosen.store) as store:  # the cases of one seed share their teachers
        for case in (case for case in CASES if chosen.only in (None, case.data)):
            for seed in chosen.seeds:
                summary = measure(case, chosen.data, seed, store)
                print(row(case, seed, summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
