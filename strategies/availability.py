"""Availability: nodes that leave a run and come back, and those busy with an earlier message."""

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

from core import Cost, Settings, UserError
from core.formatting import listed, printable
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
from core.received import ReplyError, checked_reply, read_report
from core.settings.secure import quorum, quorum_words
from strategies.deadlines import HasLateReplies
from strategies.plausibility import (
    check_adaptation,
    check_evaluation,
    check_training,
    longest_wait,
    within_time,
)
from strategies.state import FederationState, cost_of
from strategies.update_validation import refuse

POLL_SECONDS = 0.5
"""Seconds between two polls whether enough nodes are connected."""

Notify = Callable[[dict[str, Any]], None]


def poll_clients(
    grid: Grid, state: FederationState, settings: Settings, notify: Notify
) -> frozenset[int]:
    """Record late replies, find out which clients are available, and notify of changes.

    Returns
    -------
    frozenset of int
        Clients that the next round cannot use: also ``state.absent`` from now on.
    """
    record_late_replies(grid, state, settings, notify)
    found = wait_for_quorum(grid, state, settings)
    absent = found.absent(state.views, quorum(settings))
    if absent != state.absent:
        gone, busy, back = sorted(found.gone), sorted(found.busy), sorted(state.absent - absent)
        notify({"event": "roll", "gone": gone, "busy": busy, "back": back})
        shown = [f"[{listed(clients)}]" for clients in (gone, busy, back)]
        log(INFO, "clients gone: %s; busy with an earlier message: %s; back: %s", *shown)
    if new := found.unknown - state.unknown_nodes:
        log(WARNING, "nodes that are no clients of this run are not used: %s", sorted(new))
    state.note_availability(absent, found.unknown, quorum(settings))
    return absent


@dataclass(frozen=True)
class Availability:
    """Who is available for a round.

    Attributes
    ----------
    gone : frozenset of int
        Clients whose node is not connected.
    busy : frozenset of int
        Clients that have not answered a message whose deadline has passed.
    unknown : frozenset of int
        Ids of nodes that are no clients of the run.
    """

    gone: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()

    def absent(self, clients: Iterable[int], quorum: int) -> frozenset[int]:
        """Return the clients to leave out; where too few others are left, the busy take part."""
        absent = self.gone | self.busy
        return absent if len(set(clients) - absent) >= quorum else self.gone


def wait_for_quorum(
    grid: Grid,
    state: FederationState,
    settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
) -> Availability:
    """Find out who is available; wait for enough clients.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes; where it cannot tell who is connected, all are.
    state : FederationState
        The clients.
    settings : Settings
        How many a round needs, and how long it waits for them.
    sleep : callable
        Waits so many seconds.

    Raises
    ------
    UserError
        If fewer than ``run.min_replies`` are connected after ``run.wait_seconds``.
    """
    waited = 0.0
    least = min(quorum(settings), len(state.views))
    nodes = {member.node_id for member in state.members.values()}
    while True:
        connected = _connected(grid, nodes)
        gone = frozenset(k for k, m in state.members.items() if m.node_id not in connected)
        left = len(set(state.views) - gone)
        if left >= least:
            break
        if waited >= settings.run.wait_seconds:
            accepted, instead = quorum_words(settings)
            raise UserError(
                f"{left} clients are connected (gone: {listed(gone)})",
                accepted,
                f"start their nodes again and go on with llm-qfl run --resume{instead}",
            )
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    slow = grid.busy() if isinstance(grid, HasLateReplies) else frozenset()
    busy = frozenset(k for k, m in state.members.items() if m.node_id in slow) - gone
    return Availability(gone, busy, frozenset(connected - nodes))


def _connected(grid: Grid, nodes: set[int]) -> set[int]:
    """Return the ids of the nodes that are connected; if they cannot be had, the run's."""
    try:
        return set(grid.get_node_ids())
    except Exception as error:
        log(WARNING, "which nodes are connected is not known: %r", error)
        return nodes


def record_late_replies(
    grid: Grid, state: FederationState, settings: Settings, notify: Notify
) -> None:
    """Record the cost of replies that came after their deadline; their models are not used.

    What cannot be believed, or went wrong at the client, is notified with the problem and no cost:
    what a failed message has cost may come with a later report.
    """
    for sent, reply in grid.late() if isinstance(grid, HasLateReplies) else ():
        client, kind = state.client_of(sent.metadata.dst_node_id), sent.metadata.message_type
        if client is None or kind not in (TRAIN, EVALUATE, ADAPT):
            continue
        number = 0 if kind == ADAPT else int(str(_instruction(sent)["round"]))
        cost, ordered, problem = Cost(), 0, ""
        try:
            with checked_reply():
                cost, ordered = _late_cost(client, sent, reply, state, settings)
        except ReplyError as error:
            problem = str(error)
        state.record_late(client, number, cost, ordered)
        late = {"round": number, "client": client, "problem": problem}
        notify({"event": "late", **late, **asdict(cost)})


def _late_cost(
    client: int, sent: Message, reply: Message, state: FederationState, settings: Settings
) -> tuple[Cost, int]:
    """Return a late reply's cost, and the most circuits that its message could cost."""
    if reply.has_error():
        raise ReplyError(printable(reply.error.reason) or "no reason given")
    report, ordered = _late_report(client, sent, reply, state, settings)
    # The shared adapter was trained before the rounds began.
    elapsed = math.inf if isinstance(report, AdaptReport) else time.monotonic() - state.started
    report, cut = within_time(report, elapsed, longest_wait(settings))
    if cut:
        log(WARNING, "client %d, late: %s", client, cut)
    return cost_of(report, payload_bytes(sent.content), payload_bytes(reply.content)), ordered


def _instruction(sent: Message) -> ConfigRecord:
    """Return the instruction of a message of ours."""
    return sent.content.config_records[CONFIG]


def _late_report(
    client: int, sent: Message, reply: Message, state: FederationState, settings: Settings
) -> tuple[AdaptReport | EvaluateReport | TrainReport, int]:
    """Return a late reply's checked report, and the most circuits that its message could cost."""
    kind, instruction = sent.metadata.message_type, _instruction(sent)
    if kind == EVALUATE:
        evaluated = read_report(reply, EvaluateReport)
        limits = state.evaluation_limits(client, str(instruction["split"]))
        refuse(check_evaluation(evaluated, len(state.members[client].about.classes), limits))
        return evaluated, 0
    number, limits = int(str(instruction["round"])), state.training_limits(client, 0, settings)
    if kind == ADAPT:
        adapted = read_report(reply, AdaptReport)
        refuse(check_adaptation(adapted, number, limits))
        return adapted, 0
    steps, trained = int(str(instruction["steps"])), read_report(reply, TrainReport)
    # What is owed counts this message, unless a later one has been answered meanwhile.
    ordered = state.most_circuits(client, steps)
    limits = replace(limits, circuits=max(ordered, state.owed.get(client, 0)))
    refuse(check_training(trained, number, steps, limits))
    return trained, ordered
