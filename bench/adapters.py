"""Teachers on unlike sites: each its own adapter, or one that all have trained together.

``python -m bench.adapters --data FOLDER [--seeds 0 1 2] [--out FILE.jsonl]``: tweets, three
clients whose labels differ (Dirichlet 0.3), 900 rows in all, of which each client keeps a fifth
for validation; two passes over the others, batches of 16. Each teacher is scored on the same 2,000
official validation rows, which nobody trains on or chooses by, at the temperature that each site
fits on its own validation rows; figures are means over the three sites. A local teacher also has
its best epoch chosen by those rows; a shared adapter's rounds are all done. FFA-LoRA trains half
of the weights, so it is shown at twice the rate, and FedAvg at both. Bytes: one way, one client,
one round.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.tables import OUT, arguments, configured, head, mean_spread, once, row
from core import Settings, derive_seed
from data import Site, load_corpus, load_site, scores
from llm import Task, fine_tune, freeze_adapter, load_fine_tuned, local_round
from llm.calibration import SPREAD, fit_temperature, softmax
from llm.shared_adapter import build_frozen
from llm.training import predict

CLIENTS = 3
Logits = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One way to train: ``none`` is a teacher of each site's own."""

    federated: str
    rounds: int
    rate: float


CASES = (
    Case("none", 1, 0.002),
    Case("fedavg", 1, 0.002),
    Case("fedavg", 4, 0.002),
    Case("fedavg", 4, 0.004),
    Case("ffa", 1, 0.004),
    Case("ffa", 4, 0.004),
)
FIGURES = ("accuracy", "macro_recall", "loss")


def assignments(case: Case, seed: int) -> list[str]:
    """Return what a case sets on top of ``config/tweets.toml``, without paths."""
    return [
        f"run.seed={seed}",
        "features.encoder=base",
        "data.train_rows=900",
        "data.partition=dirichlet",
        "data.alpha=0.3",
        "llm.epochs=2",
        f"llm.learning_rate={case.rate}",
        f"llm.federated={case.federated}",
        *([f"llm.rounds={case.rounds}"] if case.federated != "none" else []),
    ]


def settings_of(case: Case, seed: int, *paths: str) -> Settings:
    """Return a case's settings."""
    return configured("tweets.toml", [*assignments(case, seed), *paths])[0]


def teachers(settings: Settings, sites: Sequence[Site]) -> tuple[list[Logits], int]:
    """Train; return each site's teacher, and the bytes that it sends a round."""
    if settings.llm.federated == "none":
        return [_local(settings, site, client) for client, site in enumerate(sites)], 0
    weights = np.array([len(site.train) for site in sites], dtype=float)
    arrays: dict[str, np.ndarray] = {}
    for number in range(1, settings.llm.rounds + 1):
        parts = [_part(settings, site, client, arrays, number) for client, site in enumerate(sites)]
        arrays = {
            name: np.average([part[name] for part in parts], axis=0, weights=weights).astype("f4")
            for name in parts[0]
        }
    shared = build_frozen(settings.llm, "text", freeze_adapter(arrays, 3, settings.run.seed))

    def logits(texts: Sequence[str]) -> np.ndarray:
        return predict(shared.module, shared.model.tokens(texts, "text"))

    return [logits] * len(sites), sum(array.nbytes for array in arrays.values())


def _part(
    settings: Settings, site: Site, client: int, arrays: dict[str, np.ndarray], number: int
) -> dict[str, np.ndarray]:
    seed = derive_seed(settings.run.seed, "llm", client)
    rows = (site.train.texts, site.train.labels, (), np.zeros(0))
    task = Task(*rows, 3, settings.llm, "text", seed)
    return local_round(task, arrays, number, settings.run.seed).arrays


def _local(settings: Settings, site: Site, client: int) -> Logits:
    with tempfile.TemporaryDirectory() as store:
        rows = (
            *(site.train.texts, site.train.labels),
            *(site.validation.texts, site.validation.labels),
        )
        seed = derive_seed(settings.run.seed, "llm", client)
        teacher = fine_tune(Task(*rows, 3, settings.llm, "text", seed), Path(store))
        if teacher.folder is None:
            raise OSError(f"{store} cannot be written")
        return load_fine_tuned(teacher.folder)


def measure(case: Case, data: Path, seed: int) -> dict[str, Any]:
    """Return one case's figures on the official validation rows."""
    settings = settings_of(case, seed, f"data.path={data / 'tweet_eval'}")
    held = load_corpus(settings.data, seed).validation
    if held is None:
        raise FileNotFoundError(f"{data} holds no official validation rows")
    sites = [load_site(settings, client, CLIENTS)[1] for client in range(CLIENTS)]
    made, size = teachers(settings, sites)
    logits = {teacher: teacher(held.texts) for teacher in dict.fromkeys(made)}
    evaluations = []
    for teacher, site in zip(made, sites, strict=True):
        own = site.validation
        fitted = fit_temperature(teacher(own.texts), np.asarray(own.labels), spread=SPREAD)
        evaluations.append(scores(held.labels, softmax(logits[teacher], fitted)))
    means = {key: float(np.mean([one[key] for one in evaluations])) for key in FIGURES}
    return {**given_by(case, seed), **means, "bytes": size}


def given_by(case: Case, seed: int) -> dict[str, Any]:
    """Return what identifies a run: case, seed, and every setting that it sets."""
    sets = configured("tweets.toml", assignments(case, seed))[1]
    return {**asdict(case), "seed": seed, "given": sets}


def main(given: list[str]) -> int:
    """Run what is missing and print the table."""
    chosen = arguments("bench.adapters", __doc__, "tweet_eval", given, OUT)
    torch.set_num_threads(1)
    columns = ("adapters", "rounds", "rate", "seeds", "accuracy", "macro-recall", "loss", "bytes")
    print(head(columns), flush=True)
    for case in CASES:
        runs = [
            once(chosen.out, case, given_by(case, seed), partial(measure, case, chosen.data, seed))
            for seed in chosen.seeds
        ]
        name = "each site's own" if case.federated == "none" else case.federated
        figures = [mean_spread([run[key] for run in runs]) for key in FIGURES]
        plain = (name, str(case.rounds), f"{case.rate:g}", str(len(runs)))
        print(row((*plain, *figures, f"{runs[0]['bytes']:,}")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
