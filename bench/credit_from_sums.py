"""Credit solved for from sums of groups beside credit of single models, over the same rounds.

``python -m bench.credit_from_sums --data FOLDER [--set human_vs_worm] [--seeds 5] [--first 0]
[--size 3]``, FOLDER holding the set's train.csv and test.csv. Twelve sites, eight rounds of all of
them, the settings of the shipped configuration. Sites 0 and 1 have 40 % of their labels wrong;
`SKEW` of the rows of sites 2 and 3 are of one class; eight are alike. No language model.

The run is an open one. Sums of groups lead to the same parameters as single updates do (the mean of
all by weight), so each round's groups are made of its updates as `strategies.secure_round` has
them, and evaluated as in a secure run: `strategies.update_selection.record_groups`. A line a seed,
and their mean:

- Spearman's rank correlation of the two standings of the twelve after the last round;
- the same where the eight like sites count as tied (each at their mean in open credit);
- *halves*: that of open credit's mean over the odd rounds with that over the even ones. It says how
  far ranks of eight like sites are noise in open credit itself;
- whether the two sites with wrong labels are the two of lowest standing, by sums and openly;
- how many clients are said to do harm (`harmless.shown_harmful`): of those two, and of the eight;
- *update*: cosine of a client's mean update over the rounds, less everybody's, with what the same
  least squares finds of it, mean over clients. It is what regrouping tells the server.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.tables import head, row
from core import Settings, flatten
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.harmless import shown_harmful
from strategies.group_credit import DISCOUNT, RIDGE
from strategies.grouping import make_groups

CLIENTS, ROUNDS, SKEW = 12, 8, 0.9
WRONG, LIKE = (0, 1), tuple(range(4, CLIENTS))
ROWS = {"human_vs_worm": (333, 1600), "splice": (175, 600)}
"""Rows of a site before the server takes its own, and the server's."""

COLUMNS = (
    "seed",
    "Spearman",
    "with ties",
    "halves",
    "lowest two, sums",
    "open",
    "harm, of 2",
    "of 8",
    "update",
)
Floats = npt.NDArray[np.float64]


@dataclass
class Everybody:
    """Lets everybody train the plain steps in every round."""

    name: str = "everybody"

    def decide(self, observation: Observation) -> Decision:
        """Choose everybody."""
        steps = {view.client: observation.plain_steps for view in observation.clients}
        return Decision.to_train(steps, "everybody trains")


@dataclass
class Recorder:
    """What of a run's rounds is compared.

    Attributes
    ----------
    size : int
        Fewest clients of a group.
    seed : int
        Of the groups.
    open : list of dict
        Credit of single models by client, a round each.
    updates : list of ndarray
        Updates less their mean, (clients, numbers), a round each.
    state, views : FederationState, dict
        What is known with credit from sums, and with credit of single models.
    """

    size: int
    seed: int
    open: list[dict[int, float]] = field(default_factory=list)
    updates: list[Floats] = field(default_factory=list)
    state: Any = None
    views: dict[int, ClientView] = field(default_factory=dict)

    def note(self, found: Any, now: Any, settings: Settings, state: Any, *rest: Any) -> None:
        """Evaluate a round's groups as the server of a secure run does."""
        from strategies.update_selection import PartEvaluator, record_groups

        loss_of, after, aggregator, reference = rest
        if self.state is None:
            self.state = type(state).begin(list(state.members.values()), settings)
        past = [one.groups for one in self.state.group_rounds]
        draw = np.random.default_rng([self.seed, now.number])
        updates = {update.client: update for update in now.counted}
        parts = {
            group: _mean([updates[k] for k in group], state.weights)
            for group in make_groups(list(updates), self.size, draw, past)
        }
        for client, view in state.views.items():
            known = self.state.views[client]
            self.state.views[client] = known.model_copy(update={"chosen": view.chosen})
        evaluator = PartEvaluator(settings, now.number, loss_of, aggregator, reference)
        record_groups(now, parts, self.state, evaluator, after)
        self.open.append({client: one.credit for client, one in found.items()})
        vectors = np.array([_flat(updates[k].arrays) for k in sorted(updates)])
        self.updates.append(vectors - vectors.mean(axis=0))


def _flat(arrays: Any) -> Floats:
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in sorted(arrays)])


def _mean(updates: Sequence[Any], weights: Any) -> Any:
    """Return a group's mean as a secure round has it."""
    from strategies.aggregators import Contribution

    rows = np.array([weights[update.client] for update in updates], np.float64)
    arrays = {
        name: np.average([u.arrays[name] for u in updates], axis=0, weights=rows).astype(one.dtype)
        for name, one in updates[0].arrays.items()
    }
    return Contribution(arrays, float(rows.sum()), updates[0].report)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Let a recorder see what the server evaluates in each round."""
    from strategies import update_selection

    before = update_selection.model_credits

    def evaluated(*args: Any) -> Any:
        found = before(*args)
        recorder.note(found, *args)
        recorder.views = args[2].views  # as they are once the run is over
        return found

    update_selection.model_credits = evaluated  # type: ignore[assignment]
    try:
        yield
    finally:
        update_selection.model_credits = before


def write_table(source: Path, name: str, seed: int, folder: Path) -> None:
    """Share a set's rows out to sites, in a column of their own.

    Parameters
    ----------
    source : Path
        Holds ``train.csv`` and ``test.csv``.
    name : str
        The set.
    seed : int
        Which rows go where.
    folder : Path
        Where the tables are written.
    """
    with (source / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    text = next(column for column in rows[0] if column != "label")
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    classes = sorted({one["label"] for one in rows})
    pools = {c: [rows[i][text] for i in order if rows[i]["label"] == c] for c in classes}
    plain = {label: len(pool) / len(rows) for label, pool in pools.items()}
    lines = []
    for site in (2, 3, *range(2), *range(4, CLIENTS)):  # the skewed ones need most of one class
        rest = (1 - SKEW) / (len(classes) - 1)
        mix = {c: SKEW if i == site - 2 else rest for i, c in enumerate(classes)}
        for label, share in (mix if site in (2, 3) else plain).items():
            taken = [pools[label].pop() for _ in range(round(ROWS[name][0] * share))]
            lines += [(one, label, f"site{site:02d}") for one in taken]
    with (source / "test.csv").open() as file:
        tests = [(one[text], one["label"], "site00") for one in csv.DictReader(file)]
    for part, given in (("train", lines), ("test", tests)):
        with (folder / f"{part}.csv").open("w") as file:
            csv.writer(file).writerows([("text", "label", "site"), *given])


def configuration(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return a run's settings: those that are shipped but for the sites, and no early end."""
    return {
        "run": {"clients": CLIENTS, "rounds": ROUNDS, "seed": seed, "report": False},
        "stop": {"patience": 0},
        "evaluation": {"baselines": False, "prior_correction": "none"},
        "distill": {"weight": 0.0},
        "agent": {"kind": "frugal"},  # one that sees credit; who decides is `Everybody`
        "llm": {"model": "none"},
        "quantum": {"qubits": "auto"},
        **({"features": {"kind": "one-hot"}} if name == "splice" else {}),
        "data": {
            "source": "csv",
            "kind": "dna",
            "path": str(folder / "train.csv"),
            "test_path": str(folder / "test.csv"),
            "partition": "column",
            "partition_column": "site",
            "server_rows": ROWS[name][1],
            "label_noise": 0.4,
            "noisy_clients": len(WRONG),
        },
    }


def measure(source: Path, name: str, seed: int, size: int) -> list[float]:
    """Run one federation; return the columns after the seed."""
    from bench.grid import InProcessGrid, NoCheckpoints
    from client_app.app import app
    from llm_qfl.configuration import configure
    from llm_qfl.process import held_process
    from server_app.run import run

    recorder = Recorder(size, seed)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_table(source, name, seed, folder)
        settings = configure(configuration(name, seed, folder), {}).settings
        journal = NoCheckpoints(folder / "run")
        with held_process(settings, journal.folder), recording(recorder):
            journal.begin(settings)
            grid = InProcessGrid(app, flatten(settings), settings.run.clients)
            run(grid, settings, journal, agent=Everybody())
    return compared(recorder)


def compared(recorder: Recorder) -> list[float]:
    """Return the figures of one run's record."""
    from scipy.stats import spearmanr

    solved = [recorder.state.views[k] for k in range(CLIENTS)]
    sums = np.array([view.standing for view in solved], np.float64)
    openly = np.array([recorder.views[k].standing for k in range(CLIENTS)], np.float64)
    tied = openly.copy()
    tied[list(LIKE)] = openly[list(LIKE)].mean()
    rounds = np.array([[one[k] for k in range(CLIENTS)] for one in recorder.open])
    rounds /= np.abs(rounds).mean(axis=1, keepdims=True)
    harm = [shown_harmful(view) for view in solved]
    return [
        float(spearmanr(sums, openly)[0]),
        float(spearmanr(sums, tied)[0]),
        float(spearmanr(rounds[::2].mean(axis=0), rounds[1::2].mean(axis=0))[0]),
        float(set(np.argsort(sums)[:2]) == set(WRONG)),
        float(set(np.argsort(openly)[:2]) == set(WRONG)),
        float(sum(harm[k] for k in WRONG)),
        float(sum(harm[k] for k in LIKE)),
        update_found(recorder),
    ]


def update_found(recorder: Recorder) -> float:
    """Return the mean cosine of clients' mean updates with what sums of groups tell of them."""
    groups = [one.groups for one in recorder.state.group_rounds]
    information, moment = RIDGE * np.eye(CLIENTS), np.zeros_like(recorder.updates[0])
    for age, (made, updates) in enumerate(zip(groups[::-1], recorder.updates[::-1], strict=True)):
        for group in made:
            member = np.isin(np.arange(CLIENTS), group).astype(np.float64)
            precision = DISCOUNT**age / len(group)
            information += precision * np.outer(member, member)
            moment += precision * np.outer(member, updates[list(group)].sum(axis=0))
    found, true = np.linalg.solve(information, moment), np.mean(recorder.updates, axis=0)
    sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(true, axis=1)
    return float(np.mean((found * true).sum(axis=1) / sizes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.csv, test.csv")
    parser.add_argument("--set", default="human_vs_worm", choices=sorted(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--size", type=int, default=3, help="fewest clients of a group")
    given = parser.parse_args(arguments)
    print(f"{given.set}, groups of {given.size}, {CLIENTS} clients, {ROUNDS} rounds\n")
    print(head(COLUMNS))
    found = []
    with tempfile.TemporaryDirectory() as store:
        os.environ["LLM_QFL_HOME"] = store
        for seed in range(given.first, given.first + given.seeds):
            found.append(measure(given.data, given.set, seed, given.size))
            print(row([str(seed), *map("{:.2f}".format, found[-1])]), flush=True)
    print(row(["mean", *map("{:.2f}".format, np.mean(found, axis=0))]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
