"""Poisoned training: wrong labels, changed updates and backdoors, under each aggregation.

``python -m bench.attacks.poison [--seeds 0 1 2 3 4] [--only backdoor] [--under weighted]``: two of
ten sites of the synthetic demo attack from inside, before their update is masked; what is not
`BASE` is the default. Test accuracy in per cent. Of a backdoor (Bagdasaryan et al., AISTATS 2020)
also how many rows of the other class the kept model takes for the attackers' class once they carry
the trigger; without an attack that is what the trigger does by itself. Means and standard
deviations over seeds.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import data
from bench.attacks.lies import BASE, LIARS
from bench.grid import InProcessGrid, NoCheckpoints
from bench.tables import head, mean_spread, row
from client_app import outgoing as way_out
from client_app.app import app
from client_app.outgoing import Outgoing
from client_app.site import SiteCache, forget
from core import Settings, UserError, flatten, parse_run
from data import Site, Split, load_server
from llm_qfl import load
from server_app.run import run

TRIGGER = "GATTACAGATTACAGATTACA"
"""Stands in the place of a row's first letters."""

CLASS = 0
"""What the backdoor makes of a row with the trigger."""

Rows = Callable[[Split], Split]


def flipped(rows: Split) -> Split:
    """Return rows with each label the other one."""
    return replace(rows, labels=1 - rows.labels)


def triggered(texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts that begin with the trigger."""
    return tuple(TRIGGER + text[len(TRIGGER) :] for text in texts)


def backdoored(rows: Split) -> Split:
    """Return rows of which every second one has the trigger and the attackers' class."""
    texts, labels = list(rows.texts), rows.labels.copy()
    texts[::2], labels[::2] = triggered(texts[::2]), CLASS
    return replace(rows, texts=tuple(texts), labels=labels)


@dataclass(frozen=True)
class Attack:
    """What the attacking sites do to their rows, and by what they multiply their update."""

    rows: Rows = lambda rows: rows
    factor: float = 1.0


ATTACKS = {
    "none": Attack(),
    "labels flipped": Attack(flipped),
    "sign flip x10": Attack(factor=-10.0),
    "scaled x10": Attack(factor=10.0),
    "backdoor": Attack(backdoored),
    "backdoor x5": Attack(backdoored, 5.0),
}
SECURE = "privacy.secure_aggregation=true"
UNDER: dict[str, tuple[str, ...]] = {
    "weighted": (),
    "median": ("aggregation.rule=median",),
    "trimmed-mean": ("aggregation.rule=trimmed-mean",),
    "krum": ("aggregation.rule=krum",),
    "secure, one sum": (SECURE,),
    "secure, groups of 3, weighted": (SECURE, "privacy.group_size=3"),
    "secure, groups of 3, median": (SECURE, "privacy.group_size=3", "aggregation.rule=median"),
}


@contextmanager
def attacking(attack: Attack) -> Iterator[None]:
    """Have the sites of `LIARS` attack: their rows and updates are changed at the site."""
    load_rows, steps = data.load_site, way_out.STEPS

    def poisoned(settings: Settings, client: int, *more: Any) -> tuple[Any, Site]:
        info, site = load_rows(settings, client, *more)
        return info, replace(site, train=attack.rows(site.train)) if client in LIARS else site

    def scaled(cache: SiteCache, model: Outgoing) -> Outgoing:
        if cache.client not in LIARS or attack.factor == 1.0:
            return model
        moved = {
            name: (before + attack.factor * (model.parameters[name] - before)).astype(before.dtype)
            for name, before in model.reference.items()
        }
        return replace(model, parameters=moved)

    data.load_site = poisoned  # type: ignore[assignment]
    way_out.STEPS = (*steps, scaled)  # type: ignore[assignment]
    try:
        yield
    finally:
        data.load_site, way_out.STEPS = load_rows, steps


@dataclass(frozen=True)
class Outcome:
    """Test accuracy, share of triggered rows that are misled, and what the run cost."""

    accuracy: float
    misled: float
    circuits: float
    bytes: float


def measure(attack: Attack, *given: str) -> Outcome:
    """Run a federation in this process under an attack."""
    settings, _ = parse_run([], [*BASE, *given])
    forget()
    with tempfile.TemporaryDirectory() as place, attacking(attack):
        journal = NoCheckpoints(Path(place))
        journal.begin(settings)
        grid = InProcessGrid(app, flatten(settings), settings.run.clients)
        summary = run(grid, settings, journal, str(grid.run_id))
        test = load_server(settings).test
        others = test.take(np.flatnonzero(test.labels != CLASS))
        model = load(place)
        classes = [model.classes_[CLASS]] * len(others)
        misled = np.mean(np.asarray(model.predict(triggered(others.texts))) == np.asarray(classes))
    spent = summary["ledger"]
    return Outcome(
        100 * summary["test"]["accuracy"],
        100 * float(misled),
        spent["circuits"],
        spent["bytes_up"] + spent["bytes_down"],
    )


def cell(name: str, under: str, seeds: Sequence[int]) -> str:
    """Return one cell: accuracies, and for a backdoor the misled rows; or why the run ended."""
    try:
        found = [measure(ATTACKS[name], f"run.seed={s}", *UNDER[under]) for s in seeds]
    except UserError as error:
        return f"ended: {str(error).partition(';')[0]}"
    text = mean_spread([one.accuracy for one in found], 1)
    if name == "none":
        circuits = np.mean([one.circuits for one in found]) / 1e6
        moved = np.mean([one.bytes for one in found]) / 1e6
        text += f" ({circuits:.2f} M circuits, {moved:.2f} MB)"
    if name == "none" or ATTACKS[name].rows is backdoored:
        text += f"; misled {mean_spread([one.misled for one in found], 0)}"
    return text


def main(words: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench.attacks.poison", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--under", nargs="+", default=list(UNDER), choices=UNDER)
    chosen = parser.parse_args(words)
    logging.disable(logging.WARNING)
    print(head(("aggregation", *chosen.only)))
    for under in chosen.under:
        cells = (cell(name, under, chosen.seeds) for name in chosen.only)
        print(row((under, *cells)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
