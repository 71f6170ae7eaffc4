"""What the language model's soft labels give the quantum classifier, on real tweets and DNA.

``python -m bench.distillation --data FOLDER [--only tweets|dna] [--seeds 0 1 ...]
[--rows 50 200 1000] [--store FOLDER] [--out FILE.jsonl]``, with FOLDER holding ``tweet_eval/`` and
``human_vs_worm/``. The shipped configurations without an agent (everybody trains, fixed steps, all
rounds): without distillation, with a teacher's raw soft labels of its own training rows (the
paper's), with calibrated ones, and with cross-fitted ones. Rows are those of a client, a fifth of
which it sets aside for validation; there are two clients. A run that FILE holds already is not
made again.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.grid import run_once
from bench.tables import (
    ONLY,
    OUT,
    arguments,
    configured,
    head,
    mean_error,
    mean_spread,
    once,
    row,
    sites_store,
)
from core import Settings

COMMON = ("agent.kind=all", "llm.rows=0", "evaluation.baselines=false", "run.report=false")

PLAIN = "no KD"
VARIANTS: dict[str, tuple[str, ...]] = {
    PLAIN: ("distill.weight=0",),
    "paper-style KD": ("distill.calibrate=false",),
    "calibrated KD": (),
    "cross-fitted KD": ("distill.folds=3",),
}
"""On top of a set's configuration, whose lambda and tau are those of all that distil."""

MANY_ROWS = 1000
"""From so many rows of a client on two passes of fine-tuning suffice."""

SCORES = {"accuracy": "accuracy", "macro_recall": "macro-recall", "loss": "loss"}


@dataclass(frozen=True)
class DataSet:
    """A shipped configuration, the folder of its data, and how many clients share them."""

    config: str
    folder: str
    clients: int


SETS = {
    "tweets": DataSet("tweets.toml", "tweet_eval", 2),
    "dna": DataSet("human-vs-worm.toml", "human_vs_worm", 2),
}


@dataclass(frozen=True)
class Case:
    """One run: data set, rows of a client, seed, and one of `VARIANTS`."""

    data: str
    rows: int
    seed: int
    variant: str


Lines = dict[Case, dict[str, Any]]
"""What each finished run came to."""


def assignments(case: Case) -> list[str]:
    """Return what a case sets on top of its configuration, without paths."""
    clients = SETS[case.data].clients
    size = (
        f"run.clients={clients}",
        f"data.train_rows={clients * case.rows}",
        f"llm.epochs={2 if case.rows >= MANY_ROWS else 3}",
    )
    return [*COMMON, *size, f"run.seed={case.seed}", *VARIANTS[case.variant]]


def settings_of(case: Case, paths: Sequence[str] = ()) -> Settings:
    """Return a case's settings."""
    return configured(SETS[case.data].config, [*assignments(case), *paths])[0]


def given_by(case: Case) -> dict[str, Any]:
    """Return the keys that configuration and case set, by which a line is known to be today's.

    Not the whole tree: a new key at its default changes no run.
    """
    return configured(SETS[case.data].config, assignments(case))[1]


def measure(case: Case, data: Path, store: str) -> dict[str, Any]:
    """Run one case and return its line."""
    paths = [f"data.path={data / SETS[case.data].folder}", f"llm.store={store}"]
    began = time.monotonic()
    summary = run_once(settings_of(case, paths))
    return {
        **asdict(case),
        **{name: summary["test"][name] for name in SCORES},
        "best_round": summary["best_round"],
        "validation_losses": summary["validation_losses"],
        "teachers": summary["teachers"],
        "seconds": {**summary["seconds"], "wall": time.monotonic() - began},
        "given": given_by(case),
    }


def first_round(losses: Sequence[float], target: float) -> int | None:
    """Return the first round, from 1, whose loss is at most the target; None: never."""
    return next((number for number, loss in enumerate(losses, 1) if loss <= target), None)


def rounds_to_same_loss(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Return the rounds until runs reach the best validation loss of those without distillation.

    Parameters
    ----------
    pairs : sequence of tuple of dict
        A run's line, and that of the same seed without distillation.

    Returns
    -------
    str
        Each seed's, and their mean where all reach it; ``-``: never.
    """
    found = [
        first_round(run["validation_losses"], min(plain["validation_losses"]))
        for run, plain in pairs
    ]
    each = ", ".join("-" if number is None else str(number) for number in found)
    reached = [number for number in found if number is not None]
    if not found or len(reached) < len(found):
        return each
    return f"{statistics.mean(reached):.1f} ({each})"


def table(lines: Lines) -> str:
    """Return the runs as a Markdown table.

    Means and standard deviations are over seeds; differences are to the run of the same seed and
    rows without distillation, with the standard error of their mean.
    """
    columns = [
        "data",
        "rows",
        "run",
        "seeds",
        *_pairwise(SCORES.values()),
        "rounds to the same loss",
    ]
    rows = [head(columns)]
    for data, size, variant in dict.fromkeys((c.data, c.rows, c.variant) for c in lines):
        mine = {c: line for c, line in lines.items() if _group(c) == (data, size, variant)}
        rows.append(_row((data, size, variant), mine, lines))
    return "\n".join(rows)


def _group(case: Case) -> tuple[str, int, str]:
    return case.data, case.rows, case.variant


def _pairwise(names: Any) -> Iterator[str]:
    for name in names:
        yield from (f"{name} (± s.d.)", "to no KD (± s.e.)")


def _row(group: tuple[str, int, str], mine: Lines, lines: Lines) -> str:
    data, size, variant = group
    plain = {case: lines.get(Case(data, size, case.seed, PLAIN)) for case in mine}
    pairs = [(line, other) for case, line in mine.items() if (other := plain[case])]
    cells = [data, str(size), variant, str(len(mine))]
    for name in SCORES:
        cells.append(mean_spread([line[name] for line in mine.values()]))
        gaps = [line[name] - other[name] for line, other in pairs if variant != PLAIN]
        cells.append(mean_error(gaps))
    return row([*cells, rounds_to_same_loss(pairs)])


def main(given: list[str]) -> int:
    """Run what is missing, then print the table."""
    sizes = {"--rows": {"type": int, "nargs": "+", "default": [50, 200, 1000]}}
    options = {**ONLY, **OUT, **sizes}
    chosen = arguments("bench.distillation", __doc__, "human_vs_worm", given, options)
    sets = [data for data in SETS if chosen.only in (None, data)]
    grid = itertools.product(sets, chosen.rows, chosen.seeds, VARIANTS)
    lines: Lines = {}
    # Runs of one seed share their embeddings and, but for the folds, their teachers.
    with sites_store(chosen.store) as store:
        for case in (Case(*one) for one in grid):
            wanted = {**asdict(case), "given": given_by(case)}
            lines[case] = once(chosen.out, case, wanted, partial(measure, case, chosen.data, store))
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
