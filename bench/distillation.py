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

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.published import ROOT, run_once
from federation import Settings, append_jsonl, parse_run, read_jsonl

COMMON = ("agent.kind=all", "evaluation.baselines=false", "run.report=false")

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
    return parse_run([ROOT / "config" / SETS[case.data].config], [*assignments(case), *paths])[0]


def given_by(case: Case) -> dict[str, Any]:
    """Return the keys that configuration and case set, by which a line is known to be today's.

    Not the whole tree: a new key at its default changes no run.
    """
    return parse_run([ROOT / "config" / SETS[case.data].config], assignments(case))[1]


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


def finished(out: Path | None, cases: Sequence[Case]) -> Lines:
    """Return the lines of a file that are these cases' with the settings of today."""
    wanted = {tuple(asdict(case).values()): case for case in cases}
    lines: Lines = {}
    for line in read_jsonl(out) if out else ():
        case = wanted.get(tuple(line.get(name) for name in Case.__dataclass_fields__))
        if case and line["given"] == given_by(case):
            lines[case] = line
    return lines


def first_round(losses: Sequence[float], target: float) -> int | None:
    """Return the first round, from 1, whose loss is at most the target; None: never."""
    return next((number for number, loss in enumerate(losses, 1) if loss <= target), None)


def mean_and_spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def mean_and_error(values: Sequence[float]) -> str:
    """Return mean and standard error of paired differences, signed; ``-`` for none."""
    if len(values) < 2:
        return f"{values[0]:+.4f}" if values else "-"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.4f} ± {error:.4f}"


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
    head = ["data", "rows", "run", "seeds", *_pairwise(SCORES.values()), "rounds to the same loss"]
    rows = ["| " + " | ".join(head) + " |" + "\n" + "|---" * len(head) + "|"]
    for data, size, variant in dict.fromkeys((c.data, c.rows, c.variant) for c in lines):
        mine = {c: line for c, line in lines.items() if _group(c) == (data, size, variant)}
        rows.append(_row((data, size, variant), mine, lines))
    return "\n".join(rows)


def _group(case: Case) -> tuple[str, int, str]:
    return case.data, case.rows, case.variant


def _pairwise(names: Any) -> Iterator[str]:
    for name in names:
        yield from (name, "to no KD")


def _row(group: tuple[str, int, str], mine: Lines, lines: Lines) -> str:
    data, size, variant = group
    plain = {case: lines.get(Case(data, size, case.seed, PLAIN)) for case in mine}
    pairs = [(line, other) for case, line in mine.items() if (other := plain[case])]
    cells = [data, str(size), variant, str(len(mine))]
    for name in SCORES:
        cells.append(mean_and_spread([line[name] for line in mine.values()]))
        gaps = [line[name] - other[name] for line, other in pairs if variant != PLAIN]
        cells.append(mean_and_error(gaps))
    return "| " + " | ".join([*cells, rounds_to_same_loss(pairs)]) + " |"


def main(arguments: list[str]) -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="bench.distillation", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", choices=tuple(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--store", help="the sites' memory; a temporary folder by itself")
    parser.add_argument("--out", type=Path, help="gets a JSON line as a run ends")
    given = parser.parse_args(arguments)
    if not given.data.is_dir():
        parser.error(f"--data {given.data} is no folder; name the one with tweet_eval/")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    cases = [
        Case(data, rows, seed, variant)
        for data in SETS
        if given.only in (None, data)
        for rows in given.rows
        for seed in given.seeds
        for variant in VARIANTS
    ]
    lines = finished(given.out, cases)
    with tempfile.TemporaryDirectory() as temporary:
        # Runs of one seed share their embeddings, and without distillation also their teachers.
        store = given.store or temporary
        for case in (case for case in cases if case not in lines):
            lines[case] = measure(case, given.data.resolve(), store)
            if given.out:
                append_jsonl(given.out, lines[case])
            wall = lines[case]["seconds"]["wall"]
            print(f"{case}: {wall:.0f} s", file=sys.stderr, flush=True)
    print(table({case: lines[case] for case in cases}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
