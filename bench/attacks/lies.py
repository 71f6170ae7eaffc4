"""What lying sites do to a run, under every aggregation rule.

``python -m bench.attacks [--seeds 0 1] [--rules weighted median] [--only "norm 99"]``: two of ten
sites of the synthetic demo lie, in one way at a time; what is not `BASE` is the default. Test
accuracy in per cent by seed. ``--honest`` shows instead how many updates and moments of honest
sites with strong label skew (Dirichlet 0.1) the server leaves out, which must be none.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import Message

from bench.grid import run_with_events
from bench.tables import head, row
from core import parse_run
from core.messages import (
    ABOUT,
    ARRAYS,
    PREPARE,
    TRAIN,
    Parameters,
    pack_parameters,
    unpack_parameters,
)
from llm_qfl.process import FIRST_NODE

LIARS = (3, 7)
RULES = ("weighted", "uniform", "median", "trimmed-mean", "krum")
BASE = (
    "run.clients=10",
    "run.report=false",
    "evaluation.baselines=false",
    "agent.kind=all",
    "distill.weight=0",
    "llm.epochs=1",
)
CLAIMED = 10_000_000

Lie = Callable[[Parameters, Parameters, np.random.Generator], Parameters]


def _scaled(factor: float) -> Lie:
    return lambda sent, got, rng: {k: got[k] + factor * (sent[k] - got[k]) for k in sent}


def _of_norm(length: float | None) -> Lie:
    """Noise of a 2-norm; None: that of the honest update."""

    def lie(sent: Parameters, got: Parameters, rng: np.random.Generator) -> Parameters:
        drawn = {k: rng.normal(size=sent[k].shape) for k in sorted(sent)}
        own = np.sqrt(sum(float(np.sum((sent[k] - got[k]) ** 2)) for k in sent))
        factor = (length or own) / np.sqrt(sum(float(np.sum(v**2)) for v in drawn.values()))
        return {k: got[k] + factor * drawn[k] for k in sent}

    return lie


UPDATES: dict[str, Lie] = {
    "scaled x10": _scaled(10.0),
    "sign flip x10": _scaled(-10.0),
    "sign flip x3": _scaled(-3.0),
    "sign flip x1": _scaled(-1.0),
    "norm 99": _of_norm(99.0),
    "noise of norm 9": _of_norm(9.0),
    "noise of its own norm": _of_norm(None),
}


def _moments(change: Callable[[Parameters], Parameters]) -> Callable[[Message], None]:
    def lie(reply: Message) -> None:
        arrays = unpack_parameters(reply.content.array_records[ARRAYS])
        reply.content[ARRAYS] = pack_parameters({**arrays, **change(arrays)})

    return lie


def _shifted(arrays: Parameters) -> Parameters:
    """Moments as of rows that are all moved by ten times the longest mean row."""
    count, sums = arrays["count"], arrays["sums"]
    shift = np.full(sums.shape[1], 10 * np.abs(sums).sum() / count.sum())
    total = sums.sum(axis=0)
    second = arrays["second"] + np.outer(total, shift) + np.outer(shift, total)
    return {
        "sums": sums + count[:, None] * shift,
        "second": second + count.sum() * np.outer(shift, shift),
    }


def _pointed(arrays: Parameters) -> Parameters:
    """Rows of much variance along what separates the classes: `lda` turns away from it."""
    count, sums = arrays["count"], arrays["sums"]
    apart = sums[0] / count[0] - sums[1] / count[1]
    along = apart / np.linalg.norm(apart)
    return {"second": arrays["second"] + np.trace(arrays["second"]) * np.outer(along, along)}


MOMENTS: dict[str, Callable[[Message], None]] = {
    "moments x1000": _moments(lambda a: {"sums": 1000 * a["sums"], "second": 1e6 * a["second"]}),
    "sums x1000": _moments(lambda a: {"sums": 1000 * a["sums"]}),
    "second x1000": _moments(lambda a: {"second": 1000 * a["second"]}),
    "moments shifted": _moments(_shifted),
    "classes swapped": _moments(lambda a: {"sums": a["sums"][::-1]}),
    "variance where classes differ": _moments(_pointed),
}


def _claim(reply: Message) -> None:
    about = reply.content.config_records[ABOUT]
    arrays = unpack_parameters(reply.content.array_records[ARRAYS])
    share = CLAIMED / sum(about["class_rows"])  # type: ignore[arg-type]
    rows = [int(n * share) for n in about["class_rows"]]  # type: ignore[union-attr, operator]
    about["class_rows"], about["train_rows"] = rows, sum(rows)
    grown = np.array(rows) / np.maximum(arrays["count"], 1)
    sums, second = arrays["sums"] * grown[:, None], arrays["second"] * share
    reply.content[ARRAYS] = pack_parameters(
        {"count": np.array(rows, float), "sums": sums, "second": second}
    )


PREPARED = {**MOMENTS, "10^7 rows, sign flip x1": _claim, "10^7 rows, sign flip x10": _claim}
FLIPPED = {"10^7 rows, sign flip x1": _scaled(-1.0), "10^7 rows, sign flip x10": _scaled(-10.0)}
ATTACKS = ("none", *UPDATES, *FLIPPED, *MOMENTS)


def spoil(attack: str, liars: Sequence[int] = LIARS) -> Callable[[Message, Message], Message]:
    """Return what changes the liars' replies on their way."""
    lie = UPDATES.get(attack) or FLIPPED.get(attack)
    rng = np.random.default_rng(0)

    def change(message: Message, reply: Message) -> Message:
        if reply.has_error() or message.metadata.dst_node_id - FIRST_NODE not in liars:
            return reply
        if message.metadata.message_type == PREPARE and attack in PREPARED:
            PREPARED[attack](reply)
        if message.metadata.message_type == TRAIN and lie is not None:
            got = unpack_parameters(message.content.array_records[ARRAYS])
            sent = unpack_parameters(reply.content.array_records[ARRAYS])
            changed = {k: v.astype(sent[k].dtype) for k, v in lie(sent, got, rng).items()}
            reply.content[ARRAYS] = pack_parameters(changed)
        return reply

    return change


def measure(attack: str, *given: str, liars: Sequence[int] = LIARS) -> tuple[dict[str, Any], Any]:
    """Run a federation in this process under an attack; return its summary and events."""
    settings, _ = parse_run([], [*BASE, *given])
    return run_with_events(settings, spoil(attack, liars))


def cell(attack: str, rule: str, seeds: Sequence[int]) -> str:
    """Return test accuracies in per cent, and shares of liars' and honest updates dropped."""
    accuracies, dropped, honest = [], [0, 0], 0
    for seed in seeds:
        summary, events = measure(attack, f"run.seed={seed}", f"aggregation.rule={rule}")
        accuracies.append(f"{100 * summary['test']['accuracy']:.1f}")
        for event in (event for event in events if event["event"] == "client"):
            lies = attack != "none" and event["client"] in LIARS
            dropped[lies] += bool(event["dropped"])
        left_out = next(e for e in events if e["event"] == "prepared")["moments_left_out"]
        honest += len(left_out if attack == "none" else set(left_out) - set(LIARS))
    wrong = dropped[0] + honest
    return " ".join(accuracies) + (f" ({wrong} honest left out)" if wrong else "")


def skewed(seeds: Sequence[int]) -> None:
    """Print what the server leaves out of honest runs with strong label skew."""
    titles = "updates dropped", "moments left out", "updates moved"
    print(head(("seed", "training rows", "accuracy", *titles)))
    for seed in seeds:
        words = (f"run.seed={seed}", "data.partition=dirichlet", "data.alpha=0.1", "run.rounds=5")
        summary, events = measure("none", *words)
        ready = next(event for event in events if event["event"] == "prepared")
        updates = [event for event in events if event["event"] == "client"]
        rows = " ".join(str(about["train_rows"]) for about in ready["clients"])
        clipped = [event["clipped"] for event in updates if event["clipped"] < 1]
        cells = (
            str(seed),
            rows,
            f"{100 * summary['test']['accuracy']:.1f}",
            f"{sum(bool(event['dropped']) for event in updates)} of {len(updates)}",
            f"{len(ready['moments_left_out'])} of {len(ready['clients'])}",
            f"{len(clipped)}, by {min(clipped, default=1.0):.2f} at most",
        )
        print(row(cells), flush=True)


def main(words: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.attacks", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--only", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--honest", action="store_true", help="honest sites with label skew")
    chosen = parser.parse_args(words)
    logging.disable(logging.WARNING)
    if chosen.honest:
        skewed(chosen.seeds)
        return 0
    print(head(("two of ten sites", *chosen.rules)))
    for attack in chosen.only:
        cells = (cell(attack, rule, chosen.seeds) for rule in chosen.rules)
        print(row((attack, *cells)), flush=True)
    return 0
