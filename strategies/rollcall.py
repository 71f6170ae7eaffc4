"""Who is there: nodes that leave a run and come back, and those that still work on an old order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from federation import Cost, Settings, UserError, explain
from federation.messages import (
    ADAPT,
    CONFIG,
    EVALUATE,
    TRAIN,
    AdaptReport,
    EvaluateReport,
    TrainReport,
    payload_bytes,
    read_report,
)
from strategies.exchange import Exchange
from strategies.replies import adaptation_cost, check_numbers, implausible
from strategies.state import FederationState, cost_of

LOOK_SECONDS = 0.5
"""How often it is looked whether enough nodes are there."""


def muster(
    grid: Grid, state: FederationState, settings: Settings, tell: Callable[[dict[str, Any]], None]
) -> frozenset[int]:
    """Book what came late, find out whom the next round can ask, and tell what has changed.

    Returns
    -------
    frozenset of int
        Whom it cannot ask: also ``state.absent`` from now on.
    """
    book_late(grid, state, tell)
    roll = call_roll(grid, state, settings)
    absent = roll.absent(state.views, settings.run.min_replies)
    if absent != state.absent:
        gone, busy, back = sorted(roll.gone), sorted(roll.busy), sorted(state.absent - absent)
        tell({"event": "roll", "gone": gone, "busy": busy, "back": back})
        log(INFO, "clients gone: %s; at an earlier order: %s; back: %s", gone, busy, back)
    if new := roll.strangers - state.strangers:
        log(WARNING, "nodes that are no clients of this run are not asked: %s", sorted(new))
    state.absent, state.strangers = absent, state.strangers | new
    left = set(state.views) - absent
    if len(left - state.resting) < min(settings.run.min_replies, len(left)):
        state.resting = frozenset()  # who failed in the last round is asked rather than nobody
    return absent


def book_late(grid: Grid, state: FederationState, tell: Callable[[dict[str, Any]], None]) -> None:
    """Count what has come of earlier orders since the last call, and tell of it."""
    for late in late_replies(grid, state):
        state.book_late(late.client, late.round, late.cost, late.ordered)
        said = {"round": late.round, "client": late.client, "problem": late.problem}
        tell({"event": "late", **said, **asdict(late.cost)})


@dataclass(frozen=True)
class Roll:
    """Who is there for a round.

    Attributes
    ----------
    gone : frozenset of int
        Clients whose node is not connected.
    busy : frozenset of int
        Clients that have not answered an order whose deadline has passed.
    strangers : frozenset of int
        Ids of nodes that are no clients of the run.
    """

    gone: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    strangers: frozenset[int] = frozenset()

    def absent(self, clients: Iterable[int], quorum: int) -> frozenset[int]:
        """Return who is not to be asked; where too few others are left, the busy are."""
        absent = self.gone | self.busy
        return absent if len(set(clients) - absent) >= quorum else self.gone


def call_roll(
    grid: Grid,
    state: FederationState,
    settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
) -> Roll:
    """Find out who is there; wait for enough of them. Where nobody can tell, all are.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    state : FederationState
        Whose members are looked for.
    settings : Settings
        How many a round needs, and how long they are waited for.
    sleep : callable
        Waits so many seconds.

    Raises
    ------
    UserError
        If fewer than ``run.min_replies`` are there after ``run.wait_seconds``.
    """
    waited = 0.0
    quorum = min(settings.run.min_replies, len(state.views))
    nodes = {member.node_id for member in state.members.values()}
    while True:
        there = _connected(grid, nodes)
        gone = frozenset(k for k, m in state.members.items() if m.node_id not in there)
        if len(set(state.views) - gone) >= quorum:
            break
        if waited >= settings.run.wait_seconds:
            raise UserError(_too_few(len(set(state.views) - gone), quorum, sorted(gone)))
        sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
    slow = grid.busy() if isinstance(grid, Exchange) else frozenset()
    busy = frozenset(k for k, m in state.members.items() if m.node_id in slow) - gone
    return Roll(gone, busy, frozenset(there - nodes))


def _connected(grid: Grid, nodes: set[int]) -> set[int]:
    """Return the ids of the nodes that are connected; if they cannot be had, the run's."""
    try:
        return set(grid.get_node_ids())
    except Exception as error:
        log(WARNING, "which nodes are connected is not known: %r", error)
        return nodes


def _too_few(there: int, quorum: int, gone: list[int]) -> str:
    return explain(
        f"{there} clients are connected (gone: {', '.join(map(str, gone))})",
        f"at least run.min_replies = {quorum}",
        "start their nodes again and go on with llm-qfl run --resume, or lower run.min_replies",
    )


@dataclass(frozen=True)
class Late:
    """A reply that came after its deadline: its model is not used, its cost is counted.

    Attributes
    ----------
    client, round : int
        Whose it is, and of which round; 0, the preparation, for the shared adapter's.
    cost : Cost
        What it told; nothing, if it cannot be believed.
    ordered : int
        Most circuits that its order could cost; 0 if it did not tell them: what a failed order
        has cost may come with a later report.
    problem : str
        Why it cannot be believed, or what went wrong at the client.
    """

    client: int
    round: int
    cost: Cost
    ordered: int
    problem: str


def late_replies(grid: Grid, state: FederationState) -> list[Late]:
    """Return what has come of earlier orders since the last call."""
    arrived = grid.late() if isinstance(grid, Exchange) else []
    found = []
    for order, reply in arrived:
        client = state.client_of(order.metadata.dst_node_id)
        if client is not None and order.metadata.message_type in _READ:
            found.append(_late(client, order, reply, state))
    return found


def _late(client: int, order: Message, reply: Message, state: FederationState) -> Late:
    told = order.content.config_records[CONFIG]
    kind, number = order.metadata.message_type, int(str(told["round"]))
    booked = 0 if kind == ADAPT else number
    if reply.has_error():
        return _nothing(client, booked, reply.error.reason or "no reason given")
    try:
        problem, cost, ordered = _READ[kind](client, order, reply, state)
    except (KeyError, TypeError, ValueError) as error:
        return _nothing(client, booked, f"malformed reply: {error!r}")
    if problem:
        return _nothing(client, booked, problem)
    return Late(client, booked, cost, ordered, "")


def _nothing(client: int, booked: int, problem: str) -> Late:
    return Late(client, booked, Cost(), 0, " ".join(problem.split())[:300])


def _trained(
    client: int, order: Message, reply: Message, state: FederationState
) -> tuple[str, Cost, int]:
    told = order.content.config_records[CONFIG]
    number, steps = int(str(told["round"])), int(str(told["steps"]))
    report = read_report(reply, TrainReport)
    # What is owed counts this order, unless a later one has been answered meanwhile.
    ordered = state.most_circuits(client, steps)
    most = max(ordered, state.owed.get(client, 0))
    shots = state.members[client].about.shots_per_circuit
    problem = check_numbers(report, number, steps, most, shots)
    return problem, cost_of(report, *_sizes(order, reply)), ordered


def _evaluated(
    client: int, order: Message, reply: Message, state: FederationState
) -> tuple[str, Cost, int]:
    report = read_report(reply, EvaluateReport)
    return implausible(report), cost_of(report, *_sizes(order, reply)), 0


def _adapted(
    client: int, order: Message, reply: Message, state: FederationState
) -> tuple[str, Cost, int]:
    report = read_report(reply, AdaptReport)
    number = int(str(order.content.config_records[CONFIG]["round"]))
    other = "" if report.round == number else f"it answers round {report.round}"
    return implausible(report) or other, adaptation_cost(report, *_sizes(order, reply)), 0


def _sizes(order: Message, reply: Message) -> tuple[int, int]:
    return payload_bytes(order.content), payload_bytes(reply.content)


_READ = {TRAIN: _trained, EVALUATE: _evaluated, ADAPT: _adapted}
"""What a late reply of each kind is held against: says what is wrong, its cost, and `ordered`."""
