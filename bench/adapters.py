"""Teachers on unlike sites: each its own adapter, or one that all have trained together.

``python -m bench.adapters --data FOLDER [--seeds 0 1 2] [--out FILE.jsonl]``: tweets, three
clients whose labels differ (Dirichlet 0.3), 900 rows in all, two passes over them. Every teacher
is judged on the same 2,000 official validation rows, which nobody trains on; a local teacher's
figure is the mean of the three. Bytes are the adapter's: one way, one client, one round.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.published import ROOT
from bench.tables import kept_runs, mean_spread
from data import load_corpus, load_site, scores
from federation import Settings, append_jsonl, derive_seed, parse_run
from llm import adopt, fine_tune, load_fine_tuned, local_round
from llm.calibration import softmax
from llm.shared import build_adopted
from llm.training import predict

CLIENTS = 3


@dataclass(frozen=True)
class Case:
    """One way to train: ``none`` is a teacher of each site's own."""

    federated: str
    rounds: int
    peft_rank: int = 8


CASES = (
    Case("none", 1),
    Case("fedavg", 1),
    Case("fedavg", 4),
    Case("ffa", 1),
    Case("ffa", 4),
)


def settings_of(case: Case, data: Path, seed: int) -> Settings:
    """Return a case's settings."""
    shared = case.federated != "none"
    return parse_run(
        [ROOT / "config" / "tweets.toml"],
        [
            f"data.path={data / 'tweet_eval'}",
            f"run.seed={seed}",
            "data.train_rows=900",
            "data.partition=dirichlet",
            "data.alpha=0.3",
            "llm.epochs=2",
            f"llm.federated={case.federated}",
            *([f"llm.rounds={case.rounds}"] if shared else []),
            # A is frozen in FFA: half the parameters, which take twice the rate.
            *(["llm.learning_rate=0.004"] if case.federated == "ffa" else []),
        ],
    )[0]


def logits_of(settings: Settings, texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
    """Train and return each teacher's logits on the texts, and the bytes of an adapter."""
    sites = [load_site(settings, client, CLIENTS)[1] for client in range(CLIENTS)]
    if settings.llm.federated == "none":
        return _local(settings, sites, texts)
    weights = np.array([len(site.train) for site in sites], dtype=float)
    arrays: dict[str, np.ndarray] = {}
    for number in range(1, settings.llm.rounds + 1):
        parts = [
            local_round(
                site.train.texts,
                np.asarray(site.train.labels, dtype=np.int64),
                3,
                settings.llm,
                "text",
                arrays,
                number,
                derive_seed(settings.run.seed, "llm", client),
                settings.run.seed,
            ).arrays
            for client, site in enumerate(sites)
        ]
        arrays = {
            name: np.average([part[name] for part in parts], axis=0, weights=weights).astype("f4")
            for name in parts[0]
        }
    shared = build_adopted(settings.llm, "text", adopt(arrays, 3, settings.run.seed))
    size = sum(array.nbytes for array in arrays.values())
    return [predict(shared.module, shared.model.tokens(texts, "text"))], size


def _local(
    settings: Settings, sites: Sequence[Any], texts: Sequence[str]
) -> tuple[list[np.ndarray], int]:
    import tempfile

    found, size = [], 0
    for client, site in enumerate(sites):
        with tempfile.TemporaryDirectory() as store:
            teacher = fine_tune(
                site.train.texts,
                site.train.labels,
                site.validation.texts,
                site.validation.labels,
                classes=3,
                settings=settings.llm,
                kind="text",
                seed=derive_seed(settings.run.seed, "llm", client),
                store=Path(store),
            )
            assert teacher.folder is not None
            found.append(load_fine_tuned(teacher.folder)(texts))
            size = int(teacher.metrics["adapter_bytes"])
    return found, size


def measure(case: Case, data: Path, seed: int) -> dict[str, Any]:
    """Return one case's figures on the official validation rows."""
    settings = settings_of(case, data, seed)
    held = load_corpus(settings.data, seed).validation
    assert held is not None
    logits, size = logits_of(settings, held.texts)
    verdicts = [scores(held.labels, softmax(some)) for some in logits]
    keys = ("accuracy", "macro_recall", "loss")
    means = {key: float(np.mean([verdict[key] for verdict in verdicts])) for key in keys}
    return {**asdict(case), "seed": seed, **means, "bytes": size}


def main(arguments: list[str]) -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="bench.adapters", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("adapters.jsonl"))
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        parser.error(f"--data {given.data} is no folder; name the one with tweet_eval/")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print(
        "| adapters | rounds | seeds | accuracy | macro-recall | loss | bytes |\n"
        + "|---" * 7
        + "|"
    )
    for case in CASES:
        for seed in given.seeds:
            if not kept_runs(given.out, {**asdict(case), "seed": seed}):
                append_jsonl(given.out, measure(case, given.data.resolve(), seed))
        runs = kept_runs(given.out, asdict(case))
        cells = [
            mean_spread([run[key] for run in runs]) for key in ("accuracy", "macro_recall", "loss")
        ]
        name = "each site's own" if case.federated == "none" else case.federated
        print(
            f"| {name} | {case.rounds} | {len(runs)} | {' | '.join(cells)} | "
            f"{runs[0]['bytes']:,} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
