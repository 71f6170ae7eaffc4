"""What real runs pay, beside what theorems 6.5 and 6.6 say they pay: small, in one process.

The laws are written out here and not taken from the code that counts: per participant and round
``overhead + 4 (P + H)`` bytes each way, P angles and H numbers of the head in float32; and circuits
as ``B (1 + 2 P)`` a step of Adam, ``2 B`` of SPSA, ``B`` an evaluation of COBYLA and for its start,
B the rows of a step, with a circuit for each validation row besides.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.grid import InProcessGrid, NoCheckpoints
from client_app.app import app
from client_app.site import forget
from core import Cost, Ledger, Settings, flatten, parse_run, read_json, read_jsonl
from server_app.run import run

BASE = (
    "run.clients=2",
    "run.rounds=2",
    "run.report=false",
    "data.train_rows=240",
    "data.test_rows=40",
    "data.server_rows=200",
    "data.partition=quantity",
    "llm.rows=16",
    "llm.epochs=1",
    "train.steps=4",
    "train.max_steps=400",
    "train.batch_rows=8",
    "agent.kind=all",
    "evaluation.baselines=false",
)
"""The first run; each other run changes a thing or two. Sites have unequal numbers of rows."""

CASES: dict[str, tuple[str, ...]] = {
    "2 clients, 2 rounds, 4 steps of 8 rows": (),
    "4 clients": ("run.clients=4",),
    "6 clients": ("run.clients=6",),
    "6 clients, half of them a round": (
        "run.clients=6",
        "agent.kind=random",
        "agent.fraction=0.5",
    ),
    "4 rounds": ("run.rounds=4",),
    "8 rounds": ("run.rounds=8",),
    "8 steps": ("train.steps=8",),
    "16 steps": ("train.steps=16",),
    "16 rows a step": ("train.batch_rows=16",),
    "all rows a step": ("train.batch_rows=0",),
    "`paper` block": ("quantum.block=paper",),
    "VQC": ("quantum.model=vqc",),
    "SPSA": ("train.optimizer=spsa",),
    "COBYLA": ("train.optimizer=cobyla",),
}

SECONDS = ("run.rounds=6", "data.partition=iid", "data.train_rows=160")
"""Runs whose busy seconds are fitted; round 1 is left out, since it warms up."""

STEPS, BATCHES = (10, 20, 40, 80, 160), (4, 8, 16, 32, 64)

CURVE = (
    "run.clients=4",
    "run.rounds=20",
    "train.steps=10",
    "train.max_steps=10",
    "train.batch_rows=0",
    "data.partition=dirichlet",
    "data.train_rows=400",
    "data.server_rows=400",
)
"""The run whose loss is shown beside the theorem's curve, though the theorem is silent on it."""


@dataclass(frozen=True)
class Ran:
    """A finished run: its settings, ledger, and the lines of its journal by event."""

    settings: Settings
    ledger: Ledger
    events: dict[str, list[dict[str, Any]]]

    @property
    def begun(self) -> dict[str, Any]:
        """Return what was said of the run before its first round."""
        return self.events["prepared"][0]

    @property
    def entries(self) -> list[tuple[int, int, Cost]]:
        """Return the ledger's lines of the rounds, without the preparation."""
        return [entry for entry in self.ledger.entries if entry[0] > 0]


def run_small(store: str, *given: str) -> Ran:
    """Run a federation on the synthetic data; runs of one `store` share their teachers."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    forget()
    settings, _ = parse_run([], [*BASE, *given, f"llm.store={store}"])
    with tempfile.TemporaryDirectory() as folder:
        journal = NoCheckpoints(Path(folder))
        run(InProcessGrid(app, flatten(settings), settings.run.clients), settings, journal)
        events: dict[str, list[dict[str, Any]]] = {}
        for line in read_jsonl(journal.folder / "metrics.jsonl"):
            events.setdefault(line["event"], []).append(line)
        ledger = Ledger.from_json(read_json(journal.folder / "ledger.json"))
    return Ran(settings, ledger, events)


def circuits_by_law(train: Mapping[str, Any], site: Mapping[str, int], angles: int) -> int:
    """Return the circuits of a participant's round.

    Parameters
    ----------
    train : mapping
        ``optimizer`` (``auto`` is Adam here), ``steps`` and ``batch_rows`` (0: all).
    site : mapping
        ``train_rows`` and ``val_rows``.
    angles : int
        P.
    """
    steps, rows = train["steps"], site["train_rows"]
    batch = min(train["batch_rows"], rows) if train["batch_rows"] else rows
    trained = {
        "spsa": 2 * batch * steps,
        "cobyla": batch * (1 + steps),
    }.get(train["optimizer"], steps * batch * (1 + 2 * angles))
    return int(trained + site["val_rows"])


@dataclass(frozen=True)
class Law:
    """A run's totals over its rounds: by law, and as the ledger has them.

    Attributes
    ----------
    orders : int
        Participants, summed over rounds.
    numbers : int
        P + H, what a message carries of the model.
    circuits, bytes : tuple of int
        By law, by ledger.
    lines : int
        Lines of the ledger in which steps, circuits and bytes are the law's exactly.
    tokens : int
        Tokens that a language model was trained on after round 1.
    """

    orders: int
    numbers: int
    circuits: tuple[int, int]
    bytes: tuple[int, int]
    lines: int
    tokens: int

    @property
    def exact(self) -> bool:
        """Say whether the ledger obeys the law in every line."""
        return self.lines == self.orders and self.tokens == 0


def overhead(ran: Ran) -> tuple[int, int]:
    """Return the bytes down and up, besides the parameters, of a run's first order."""
    _, _, cost = ran.entries[0]
    return cost.bytes_down - 4 * ran.begun["parameters"], cost.bytes_up - 4 * ran.begun[
        "parameters"
    ]


def law_of(ran: Ran, besides: tuple[int, int]) -> Law:
    """Hold a run's ledger against the laws, `besides` being the overhead of another run."""
    sites = {site["client"]: site for site in ran.begun["clients"]}
    train, numbers = ran.settings.train.model_dump(), int(ran.begun["parameters"])
    down, up = (4 * numbers + extra for extra in besides)
    orders, lines, circuits = 0, 0, 0
    for _, client, cost in ran.entries:
        paid = circuits_by_law(train, sites[client], ran.begun["angles"])
        wanted = (train["steps"], paid, down, up)
        orders, circuits = orders + 1, circuits + paid
        lines += wanted == (cost.steps, cost.circuits, cost.bytes_down, cost.bytes_up)
    costs = [cost for _, _, cost in ran.entries]
    return Law(
        orders,
        numbers,
        (circuits, sum(cost.circuits for cost in costs)),
        (orders * (down + up), sum(cost.bytes_up + cost.bytes_down for cost in costs)),
        lines,
        sum(cost.llm_tokens for number, _, cost in ran.entries if number > 1),
    )


def laws(store: str, cases: Mapping[str, Sequence[str]] = CASES) -> dict[str, Law]:
    """Run all cases; the first one's overhead has to be everybody's."""
    found: dict[str, Law] = {}
    besides: tuple[int, int] | None = None
    for name, given in cases.items():
        ran = run_small(store, *given)
        besides = besides or overhead(ran)
        found[name] = law_of(ran, besides)
    return found


@dataclass(frozen=True)
class Fit:
    """A straight line through points, and the share of their variance that it explains."""

    at_zero: float
    slope: float
    r2: float


def fit(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Fit y = a + b x by least squares."""
    slope, at_zero = np.polyfit(x, y, 1)
    left = np.asarray(y) - (at_zero + slope * np.asarray(x))
    return Fit(float(at_zero), float(slope), float(1 - left.var() / np.var(y)))


def seconds(store: str) -> dict[str, Fit]:
    """Fit busy seconds against steps, and against circuits where only the rows of a step vary.

    A point is the median of a run's participants and rounds: other work on the machine stalls some.
    """
    found = {}
    for key, values in (("steps", STEPS), ("batch_rows", BATCHES)):
        x: list[float] = []
        y: list[float] = []
        for value in values:
            given = ("train.steps=40", "train.batch_rows=8", f"train.{key}={value}")
            ran = run_small(store, *SECONDS, *given)
            costs = [cost for number, _, cost in ran.entries if number > 1]
            counts = [cost.steps if key == "steps" else cost.circuits for cost in costs]
            x.append(statistics.median(counts))
            y.append(statistics.median(cost.busy_seconds for cost in costs))
        found["steps" if key == "steps" else "circuits"] = fit(x, y)
    return found


def curves(store: str) -> dict[str, list[float]]:
    """Return validation losses by round of the quantum model under both schedules."""
    schedules = {
        "constant": ("train.schedule=constant",),
        "inverse-time": ("train.schedule=inverse-time", "train.mu=1", "train.smoothness=5"),
    }
    return {
        name: [event["loss"] for event in run_small(store, *CURVE, *given).events["round"]]
        for name, given in schedules.items()
    }


def curvature(points: int = 5, seed: int = 0) -> list[tuple[float, float]]:
    """Return the least and largest curvature of a quantum model's loss at random parameters.

    The loss is cross-entropy on 64 random rows of 4 qubits; curvatures are the eigenvalues of its
    Hessian, by central differences of exact gradients in double precision.
    """
    import torch

    from quantum import TrainingData, build_classifier
    from quantum.training.problem import Problem

    settings, _ = parse_run([], ["quantum.precision=double", "quantum.qubits=4"])
    classifier = build_classifier(settings.quantum, 2)
    rng = np.random.default_rng(seed)
    data = TrainingData(
        features=rng.uniform(-1.5, 1.5, size=(64, settings.quantum.width)).astype(np.float32),
        labels=rng.integers(0, 2, size=64),
    )
    distill = settings.distill.model_copy(update={"weight": 0.0})
    found = []
    for point in range(points):
        start = dict(classifier.initial(seed + point))
        problem = Problem(classifier, start, data, settings.train, distill, seed)
        at = torch.from_numpy(problem.start)
        small = 1e-4
        rows = []
        for moved in small * torch.eye(len(at), dtype=at.dtype):
            above = problem.by_autograd(at + moved, 0)[1]
            below = problem.by_autograd(at - moved, 0)[1]
            rows.append((above - below) / (2 * small))
        hessian = torch.stack(rows)
        bends = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
        found.append((float(bends[0]), float(bends[-1])))
    return found
