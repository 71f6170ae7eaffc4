"""A federation of softmax regressions: the real state, credit and guard, tiny models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core import Cost, Settings, with_idle
from core.messages import SiteReport, TrainReport
from strategies.credit import credits
from strategies.decisions import Agent, ClientView, Decision, Observation
from strategies.decisions.guard import guard
from strategies.state import FederationState, Member


@dataclass(frozen=True)
class Site:
    """One client's rows, and how long a step of it takes."""

    rows: np.ndarray
    labels: np.ndarray
    val_rows: np.ndarray
    val_labels: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Task:
    """A drawn federation: sites, and the server's validation and test rows."""

    sites: list[Site]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int


@dataclass
class Ran:
    """What a simulated run came to; ``spend`` is in plain rounds of everybody."""

    seen: list[Observation] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    spend: float = 0.0


def softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def loss_of(weights: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> float:
    said = softmax(rows @ weights)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(said, 1e-12)).mean())


def train(weights: np.ndarray, site: Site, steps: int, rate: float) -> np.ndarray:
    wanted = np.eye(weights.shape[1])[site.labels]
    for _ in range(steps):
        slope = site.rows.T @ (softmax(site.rows @ weights) - wanted) / len(site.rows)
        weights = weights - rate * slope
    return weights


def draw(
    seed: int, clients: int = 10, noisy: int = 2, slow: int = 2, *, noise: float = 0.8
) -> Task:
    """Draw Gaussian classes, skewed by client; the first clients' labels are noisy, the last slow.

    With ``noise`` 0.8 of three classes a noisy client's labels point away from the truth.
    """
    rng = np.random.default_rng(seed)
    classes, features = 3, 8
    centres = rng.normal(size=(classes, features)) * 0.9

    def sample(count: int, mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(classes, size=count, p=mix)
        drawn = centres[labels] + rng.normal(size=(count, features))
        return np.hstack([drawn, np.ones((count, 1))]), labels

    def spoilt(labels: np.ndarray, client: int) -> np.ndarray:
        flipped = rng.random(len(labels)) < (noise if client < noisy else 0)
        return np.where(flipped, (labels + rng.integers(1, classes, len(labels))) % classes, labels)

    even = np.full(classes, 1 / classes)
    sites = []
    for client in range(clients):
        mix = rng.dirichlet(np.full(classes, 0.5))
        rows, labels = sample(int(rng.integers(30, 120)), mix)
        val_rows, val_labels = sample(15, mix)
        pace = 0.4 if client >= clients - slow else 0.1
        labels, val_labels = spoilt(labels, client), spoilt(val_labels, client)
        sites.append(Site(rows, labels, val_rows, val_labels, pace))
    return Task(sites, sample(300, even), sample(1000, even), classes)


def member(client: int, site: Site, classes: int) -> Member:
    said: dict[str, Any] = {
        **dict.fromkeys(SiteReport.__dataclass_fields__, "none"),
        "client": client,
        "train_rows": len(site.labels),
        "val_rows": len(site.val_labels),
        "test_rows": 0,
        "class_rows": [int((site.labels == c).sum()) for c in range(classes)],
        "classes": [str(c) for c in range(classes)],
        "backend": "exact",
        "adapter_bytes": 0,
        "circuits_per_step": 10 * len(site.labels),
        "circuits_fixed": len(site.val_labels),
        "shots_per_circuit": 0,
        "seconds": 0.0,
        "length": 0,
    }
    return Member(1000 + client, SiteReport(**said))


@dataclass
class Federation:
    """A run under way."""

    task: Task
    settings: Settings
    rate: float
    credited: bool
    state: FederationState = field(init=False)
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        sites = self.task.sites
        members = [member(k, site, self.task.classes) for k, site in enumerate(sites)]
        self.state = FederationState.begin(members, self.settings)
        self.weights = np.zeros((sites[0].rows.shape[1], self.task.classes))
        self.state.start_loss = self.score(self.weights) if self.credited else None

    def score(self, weights: np.ndarray) -> float:
        return loss_of(weights, *self.task.validation)

    def average(self, models: dict[int, np.ndarray], clients: list[int]) -> np.ndarray:
        shares = np.array([len(self.task.sites[k].labels) for k in clients], dtype=float)
        stacked = np.array([models[k] for k in clients])
        return np.asarray(np.tensordot(shares / shares.sum(), stacked, 1))

    def train(self, number: int, view: ClientView, steps: int) -> tuple[np.ndarray, Cost]:
        site = self.task.sites[view.client]
        model = train(self.weights, site, steps, self.rate)
        spent = view.circuits_fixed + steps * view.circuits_per_step
        cost = Cost(steps=steps, circuits=spent, train_seconds=steps * site.seconds)
        said: dict[str, Any] = {
            **dict.fromkeys(TrainReport.__dataclass_fields__, 0),
            "weight": 1.0,
            "round": number,
            "steps": steps,
            "circuits": spent,
            "loss": loss_of(model, site.val_rows, site.val_labels),
            "llm_loss": 0.5,
            "llm_temperature": 1.0,
        }
        self.state.trained(view.client, TrainReport(**said), cost, steps)
        return model, cost

    def round(self, number: int, seen: Observation, decision: Decision) -> None:
        views = {view.client: view for view in seen.clients}
        done = {k: self.train(number, views[k], decision.steps[k]) for k in decision.participants}
        models = {k: model for k, (model, _) in done.items()}
        before = self.state.losses[-1] if self.state.losses else self.score(self.weights)
        self.weights = self.average(models, list(models))
        after = self.score(self.weights)
        if self.credited:
            found = credits(
                models, lambda some: self.average(models, some), self.score, before, after
            )
            self.state.credited(found)
        self.state.finish_round(decision.participants, after, 0.5)
        self.state.ledger.add(number, with_idle({k: cost for k, (_, cost) in done.items()}))


def simulate(
    task: Task, agent: Agent, settings: Settings, rate: float = 0.3, *, credited: bool = True
) -> Ran:
    """Run rounds as the strategy does: observe, decide, guard, train, average, credit."""
    federation, ran = Federation(task, settings, rate, credited), Ran()
    for number in range(1, settings.run.rounds + 1):
        seen = federation.state.observe(number, settings)
        decision, _ = guard(agent.decide(seen), seen, settings)
        ran.seen.append(seen)
        ran.decisions.append(decision)
        if decision.stop:
            break
        views = {view.client: view for view in seen.clients}
        spent = sum(views[k].cost(decision.steps[k]) for k in decision.participants)
        ran.spend += spent / seen.plain_spend
        federation.round(number, seen, decision)
        ran.losses.append(loss_of(federation.weights, *task.test))
    return ran
