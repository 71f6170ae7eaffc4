"""Who is there: nodes that leave a run and come back, and those that still work on an old order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from logging import INFO, WARNING
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError, explain
from core.formatting import printable
from core.messages import (
    ADAPT,
    CONFIG,
    EVALUATE,
    TRAIN,
    AdaptReport,
    EvaluateReport,
    TrainReport,
    payload_bytes,
)
from core.received import (
    ReplyError,
    checked_reply,
    read_report,
)
from strategies.deadlines import Exchange
from strategies.plausibility import (
    Limits,
    check_adaptation,
    check_evaluation,
    check_training,
    longest_wait,
    most_tokens,
    within_time,
)
from strategies.state import FederationState, cost_of
from strategies.update_validation import adaptation_cost

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
    book_late(grid, state, settings, tell)
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


def book_late(
    grid: Grid, state: FederationState, settings: Settings, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Count what has come of earlier orders since the last call, and tell of it."""
    for late in late_replies(grid, state, settings):
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


def late_replies(grid: Grid, state: FederationState, settings: Settings) -> list[Late]:
    """Return what has come of earlier orders since the last call."""
    arrived = grid.late() if isinstance(grid, Exchange) else []
    found = []
    for order, reply in arrived:
        client = state.client_of(order.metadata.dst_node_id)
        if client is not None and order.metadata.message_type in _READ:
            found.append(_late(client, order, reply, state, settings))
    return found


def _late(
    client: int, order: Message, reply: Message, state: FederationState, settings: Settings
) -> Late:
    kind, number = order.metadata.message_type, int(str(_told(order)["round"]))
    booked = 0 if kind == ADAPT else number
    if reply.has_error():
        return _nothing(client, booked, printable(reply.error.reason) or "no reason given")
    try:
        with checked_reply():
            report, ordered = _READ[kind](client, order, reply, state, settings)
            # The shared adapter was trained before the rounds began.
            elapsed = math.inf if kind == ADAPT else time.monotonic() - state.started
            report, cut = within_time(report, elapsed, longest_wait(settings))
            sizes = payload_bytes(order.content), payload_bytes(reply.content)
    except ReplyError as error:
        return _nothing(client, booked, str(error))
    if cut:
        log(WARNING, "round %d, client %d, late: %s", number, client, cut)
    if isinstance(report, AdaptReport):
        return Late(client, booked, adaptation_cost(report, *sizes), ordered, "")
    return Late(client, booked, cost_of(report, *sizes), ordered, "")


def _nothing(client: int, booked: int, problem: str) -> Late:
    return Late(client, booked, Cost(), 0, problem)


def _told(order: Message) -> ConfigRecord:
    """Return what an order of our own said."""
    return order.content.config_records[CONFIG]


def _trained(
    client: int, order: Message, reply: Message, state: FederationState, settings: Settings
) -> tuple[TrainReport, int]:
    number, steps = int(str(_told(order)["round"])), int(str(_told(order)["steps"]))
    report = read_report(reply, TrainReport)
    # What is owed counts this order, unless a later one has been answered meanwhile.
    ordered = state.most_circuits(client, steps)
    limits = state.training_limits(client, 0, settings)
    limits = replace(limits, circuits=max(ordered, state.owed.get(client, 0)))
    _refuse(check_training(report, number, steps, limits))
    return report, ordered


def _evaluated(
    client: int, order: Message, reply: Message, state: FederationState, settings: Settings
) -> tuple[EvaluateReport, int]:
    report = read_report(reply, EvaluateReport)
    limits = state.evaluation_limits(client, str(_told(order)["split"]))
    _refuse(check_evaluation(report, len(state.members[client].about.classes), limits))
    return report, 0


def _adapted(
    client: int, order: Message, reply: Message, state: FederationState, settings: Settings
) -> tuple[AdaptReport, int]:
    report, about = read_report(reply, AdaptReport), state.members[client].about
    limits = Limits(about.train_rows, tokens=most_tokens(about, settings))
    _refuse(check_adaptation(report, int(str(_told(order)["round"])), limits))
    return report, 0


def _refuse(problem: str) -> None:
    if problem:
        raise ReplyError(problem)


_Reader = Callable[
    [int, Message, Message, FederationState, Settings],
    tuple[AdaptReport | EvaluateReport | TrainReport, int],
]
_READ: dict[str, _Reader] = {TRAIN: _trained, EVALUATE: _evaluated, ADAPT: _adapted}
"""What a late reply of each kind is held against: returns its report, and `Late.ordered`."""
