"""What a run is given before its first round: settings, clients, agent, evaluator, journal."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import ArrayRecord, MetricRecord

from core import Cost, Settings
from core.messages import UNSET, SiteReport
from core.settings.derived import agent_declares
from strategies.adapters import SharedAdapter
from strategies.decisions import Agent
from strategies.journal import RunJournal
from strategies.secure_exchange import SecureExchange
from strategies.state import Member

EvaluationResult = dict[str, Any]
"""Scores of a model on some rows, as `data.scores` makes them."""


Watch = Callable[[Mapping[str, Any]], str]
"""Is shown the events ``prepared``, ``resumed`` and ``round`` of ``metrics.jsonl`` once they are
in a checkpoint, a round's with the ``client`` events as ``clients``; returns why the run is to end
now, or an empty text."""


def unwatched(event: Mapping[str, Any]) -> str:
    """Nobody watches the run."""
    return ""


class Evaluator(Protocol):
    """Evaluates models on the server's own rows."""

    @property
    def rows(self) -> tuple[int, int]:
        """Validation and test rows."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the rows that the server sees; a line each."""

    def validate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Evaluate a round's model on the validation rows."""

    def loss(self, arrays: ArrayRecord) -> float:
        """Return the validation loss of any parameters, nats."""

    def credit_loss(self, arrays: ArrayRecord) -> float:
        """Return the same with the sites' class weights, by which models are credited, nats."""

    def test(self, arrays: ArrayRecord) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
        """Return the final scores and the baselines' scores on the same test rows."""

    def corrected(self, arrays: ArrayRecord) -> tuple[ArrayRecord, dict[str, Any]]:
        """Return a model with its classes' prior corrected where that pays, and what was found."""

    def spent(self) -> dict[str, float]:
        """Return what the evaluations cost on a device; empty: nothing."""


class Clock:
    """Wall seconds by phase, with those of the run's earlier parts.

    Parameters
    ----------
    earlier : mapping, optional
        What `timings` returned when the run was interrupted.
    """

    def __init__(self, earlier: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(earlier or {})
        self.began = time.monotonic() - self.seconds.pop("total", 0.0)
        self._open: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._open[name] = time.monotonic()
        try:
            yield
        finally:
            began = self._open.pop(name)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def timings(self) -> dict[str, float]:
        """Return the seconds so far, of phases under way too, and their ``total``."""
        now, found = time.monotonic(), dict(self.seconds)
        for name, began in self._open.items():
            found[name] = found.get(name, 0.0) + now - began
        return {**found, "total": self.total}

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began


@dataclass(frozen=True)
class PreparedFederation:
    """The clients of a run, and what was made of their reports before round 1.

    Attributes
    ----------
    members : tuple of Member
        The clients by index.
    costs : dict
        What the preparation cost each client.
    projection : bytes
        The federated projection (`data.Projection.to_bytes`).
    class_weights : list of float
        Weights of the classes in the clients' loss.
    adapter : SharedAdapter or None
        What the clients have trained together of their language models.
    left_out : tuple of int
        Clients whose moments the projection does without.
    notes : tuple of str
        What the user should know of the clients' moments; a line each.
    choice : str
        Why the features are what they are; empty where there was no choice.
    exchange : SecureExchange or None
        Under secure aggregation, the clients' keys, where they are there already.
    """

    members: tuple[Member, ...]
    costs: dict[int, Cost]
    projection: bytes
    class_weights: list[float]
    adapter: SharedAdapter | None = None
    left_out: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    choice: str = ""
    exchange: SecureExchange | None = None

    @property
    def first(self) -> SiteReport:
        """Report of client 0; all agree on data, classes and features."""
        return self.members[0].about


@dataclass(frozen=True)
class RunContext:
    """Everything of a run that is fixed before its first round.

    Attributes
    ----------
    settings : Settings
        The run's settings.
    federation : PreparedFederation
        The clients, their projection and shared adapter.
    agent : Agent
        Who decides.
    evaluator : Evaluator or None
        Evaluates at the server; None: every client evaluates on rows of its own.
    journal : RunJournal
        Where the run is written down.
    clock : Clock
        Times the run's phases.
    run_id : str
        Flower's id of the run, of a resumed one that of its first part; empty outside Flower.
    watch : callable
        Sees what happens, and may end the run (`Watch`).
    depths : frozenset of int
        Angles of the circuits that sites may have; empty: of the global one only.
    """

    settings: Settings
    federation: PreparedFederation
    agent: Agent
    evaluator: Evaluator | None
    journal: RunJournal
    clock: Clock
    run_id: str = ""
    watch: Watch = unwatched
    depths: frozenset[int] = frozenset()

    @functools.cached_property
    def adapter_digest(self) -> str:
        """Digest of the shared adapter, or `UNSET`."""
        if self.federation.adapter is None:
            return UNSET
        from llm import freeze_adapter

        arrays, classes = self.federation.adapter.arrays, len(self.federation.first.classes)
        return freeze_adapter(arrays, classes, self.settings.run.seed).digest

    @property
    def credits(self) -> bool:
        """Whether the agent learns what each client's model was worth at the server.

        Not on a device, where each evaluation costs jobs, and not with privacy: credit is made of
        single clients' models, under secure aggregation of sums of groups.
        """
        free = self.settings.evaluation.backend == "exact" and self.settings.privacy.dp == "none"
        sees = [agent_declares(self.settings, name) for name in ("sees_credit", "needs_credit")]
        return self.evaluator is not None and free and any(sees)

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the run besides the strategy's own state."""
        federation = self.federation
        return {
            "run": self.run_id or UNSET,
            "projection": base64.b64encode(federation.projection).decode("ascii"),
            "class_weights": federation.class_weights,
            "adapter": federation.adapter.facts() if federation.adapter else None,
            "seconds": self.clock.timings(),
            "judge": self.evaluator.spent() if self.evaluator else {},
        }
