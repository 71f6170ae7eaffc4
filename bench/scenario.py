"""What the studies of agents have that settings cannot say: the runner of `bench/studies/agents-*`.

Clients 2 and 3 are slow. Seconds are not measured but modelled, since those of a busy machine are
noise: a circuit takes `MILLISECONDS`, of a slow client `SLOWNESS` times that; queues and language
models take none. They reach the agent as a client's report does, and idle time is the ledger's:
what participants wait for the slowest of their round. Circuits, bytes and rounds are the ledger's
as they are.

The study's target is what plain QFL (everybody trains, always the same steps) of the same seed ends
with, less half a point. A run ends when the mean validation accuracy of its last three rounds is
there: what it has paid by then is compared, and the model of that round is scored on the test rows,
once. Circuits are the currency, not rounds: a run may make as many rounds as the study says, here
twice those of plain QFL, but none spends more than `PLAIN_ROUNDS` rounds of everybody would cost;
that ends plain QFL too. Three rounds and not one for the target, since a curve that jumps would
otherwise be rewarded for its jumps, and few participants make it jump. An agent that wishes to stop
before the target trains whom it would train otherwise, or whom it trained last: here the question
is what the target costs it. A run that never gets there pays for all of its rounds. The same study
without ``runner`` and ``target`` lets agents stop by themselves, in measured seconds.

Judging each returned model for its credit costs the server up to two evaluations of its rows a
participant, which are exact simulations here and cost no circuits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Message

from bench.grid import InProcessGrid, NoCheckpoints
from client_app.app import app
from core import Settings, UserError, flatten
from core.messages import METRICS, TRAIN
from llm_qfl.process import FIRST_NODE, held_process
from reporting.compared_run import smoothed
from server_app.run import run
from strategies import build_agent, plausibility
from strategies.decisions import Agent, Decision, Observation

SLOW = (2, 3)
"""Clients; the first ones have wrong labels, the study's prices say whose circuits are dear."""

PLAIN_ROUNDS = 30
"""Rounds of everybody, plain steps, whose price no run exceeds."""

MILLISECONDS, SLOWNESS = 1.0, 4.0
"""Of a circuit; of a slow client's circuits."""


@dataclass
class UntilTarget:
    """Lets an agent decide until the target or the budget is reached, and no less.

    Attributes
    ----------
    inner : Agent
        Who decides.
    target : float or None
        Mean validation accuracy of the last rounds that ends the run; None: nothing does.
    """

    inner: Agent
    target: float | None
    overruled: int = 0
    last: Decision | None = None

    @property
    def name(self) -> str:
        """Return the agent's name."""
        return self.inner.name

    def decide(self, observation: Observation) -> Decision:
        """Stop at the target, or where a round of everybody might exceed the budget."""
        mean = smoothed(observation.accuracies)
        if self.target is not None and mean is not None and mean >= self.target:
            return Decision.to_stop("the target is reached")
        left = PLAIN_ROUNDS * observation.plain_spend - sum(observation.spends)
        if observation.plain_spend > 0 and left < observation.plain_spend * (1 - 1e-9):
            return Decision.to_stop("plain QFL's budget is spent")
        decision = self.inner.decide(observation)
        if decision.stop:
            self.overruled += 1
            decision = _going_on(decision) or self.last or _everybody(observation)
        self.last = decision
        return decision

    def __getattr__(self, name: str) -> Any:
        """Hand out what else the agent has: an LLM's attempts belong into the journal."""
        return getattr(self.inner, name)


def _going_on(decision: Decision) -> Decision | None:
    """Return who would train if the run must go on, where the agent says so with its wish."""
    return decision.model_copy(update={"stop": False}) if decision.participants else None


def _everybody(seen: Observation) -> Decision:
    steps = {view.client: view.steps for view in seen.clients}
    return Decision.to_train(steps, "overruled: everybody trains")


def paced(order: Message, reply: Message) -> Message:
    """Replace the seconds of a training reply by modelled ones: those of its circuits."""
    if order.metadata.message_type == TRAIN and not reply.has_error():
        record = reply.content.metric_records[METRICS]
        slowness = SLOWNESS if order.metadata.dst_node_id - FIRST_NODE in SLOW else 1.0
        circuits = int(record["circuits"])  # type: ignore[arg-type]
        record["train_seconds"] = circuits * slowness * MILLISECONDS / 1000
        record["llm_seconds"] = record["queue_seconds"] = 0.0
    return reply


@contextmanager
def modelled_seconds() -> Iterator[None]:
    """Let seconds pass for which nobody waited: a server cuts what is longer than its own clock."""
    before, plausibility.SLACK_SECONDS = plausibility.SLACK_SECONDS, math.inf
    try:
        yield
    finally:
        plausibility.SLACK_SECONDS = before


def run_cell(settings: Settings, target: float | None, callbacks: Any = None) -> None:
    """Run one cell of a study in this process, until the target.

    Parameters
    ----------
    settings : Settings
        The cell's, with its seed and ``run.folder``.
    target : float or None
        Validation accuracy that ends the run; None: it makes all its rounds.
    callbacks : None
        Not for these runs.

    Raises
    ------
    UserError
        As `server_app.run.run`; and for callbacks.
    """
    if callbacks:
        raise UserError("callbacks for bench.scenario", "a study without", "leave them out")
    folder = Path(settings.run.folder)
    with held_process(settings, folder), modelled_seconds():
        agent = UntilTarget(build_agent(settings), target)
        journal = NoCheckpoints(folder)
        journal.begin(settings)
        grid = InProcessGrid(app, flatten(settings), settings.run.clients, spoil=paced)
        summary = run(grid, settings, journal, agent=agent)
    journal.summary({**summary, "overruled": agent.overruled})
    journal.event({"event": "end", "status": "completed", "rounds": summary["rounds"]})
