"""What came back in a round: checked updates, evaluations, and failures with their reasons."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import WARNING

from flwr.app import Message, MetricRecord
from flwr.common.logger import log

from core import Cost
from core.array_decoding import Shapes
from core.formatting import printable
from core.messages import (
    BUDGET_CODE,
    TRAIN,
    AdaptReport,
    EvaluateReport,
    Parameters,
    TrainReport,
    payload_bytes,
)
from core.received import (
    ReplyError,
    checked_reply,
    read_arrays,
    read_report,
    rebuild_reply,
)
from strategies.agents import Decision
from strategies.plausibility import Timed, within_time
from strategies.state import cost_of

ClientOf = Callable[[int], int | None]
"""Finds the client behind a node id."""


@dataclass(frozen=True)
class Update:
    """A participant's answer after the checks; ``dropped`` says why it does not count.

    ``message`` is built anew of the checked numbers and arrays: nothing else that a client sent
    reaches an aggregator.
    """

    client: int
    message: Message
    report: TrainReport
    cost: Cost
    dropped: str = ""


@dataclass
class Round:
    """What a round is made of while it is under way.

    Attributes
    ----------
    wait : float
        Longest wait for one job of a client, seconds.
    began : float
        When the round began, by the monotonic clock, seconds.
    """

    number: int
    decision: Decision
    sent: dict[int, int] = field(default_factory=dict)
    sent_to_evaluate: dict[int, int] = field(default_factory=dict)
    updates: dict[int, Update] = field(default_factory=dict)
    aggregated: tuple[int, ...] = ()
    shares: dict[int, float] = field(default_factory=dict)
    counted: list[Update] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    exhausted: set[int] = field(default_factory=set)
    evaluation: dict[int, Cost] = field(default_factory=dict)
    lost: bool = False
    wait: float = math.inf
    began: float = field(default_factory=time.monotonic)

    def timed(self, client: int, report: Timed) -> Timed:
        """Cut a report's seconds to what can have passed, with a warning."""
        report, said = within_time(report, time.monotonic() - self.began, self.wait)
        if said:
            log(WARNING, "round %d, client %d: %s", self.number, client, said)
        return report

    def fail(self, client: int | None, why: str | None) -> None:
        """Note a failure, in one line, and log it."""
        who = "a lost node" if client is None else f"client {client}"
        text = printable(why or "") or "no reason given"
        self.failures.append(f"{who}: {text}")
        if client is not None:
            self.failed.add(client)
        log(WARNING, "round %d, %s: %s", self.number, who, text)


def collect_updates(
    now: Round,
    replies: Iterable[Message],
    client_of: ClientOf,
    believable: Callable[[int, TrainReport], str],
    shapes: Shapes,
    check: Callable[[Parameters], str],
) -> None:
    """Sort training replies into updates and failures; who never answered failed too.

    Parameters
    ----------
    now : Round
        The round under way; its updates and failures are filled in.
    replies : iterable of Message
        What arrived.
    client_of : callable
        Finds the client behind a node id.
    believable : callable
        Says which of a client's numbers cannot be true, or returns an empty string.
    shapes : mapping
        Names and shapes of the round's global parameters.
    check : callable
        Says why parameters may not be aggregated, or returns an empty string.
    """
    for client, reply in _answers(now, replies, client_of):
        try:
            with checked_reply():
                report = read_report(reply, TrainReport)
                if impossible := believable(client, report):
                    # What cannot be believed reaches neither ledger nor history.
                    raise ReplyError(impossible)
                report = now.timed(client, report)
                cost = cost_of(report, now.sent[client], payload_bytes(reply.content))
        except ReplyError as error:
            now.fail(client, f"update dropped: {error}")
            continue
        # What it cost counts, even if its parameters do not.
        update = _update(client, reply, report, cost, shapes, check)
        if update.dropped:
            now.fail(client, f"update dropped: {update.dropped}")
        now.updates[client] = update
    for client in now.decision.participants:
        if client not in now.updates and client not in now.failed:
            now.fail(client, "no reply in time")


def _update(
    client: int,
    reply: Message,
    report: TrainReport,
    cost: Cost,
    shapes: Shapes,
    check: Callable[[Parameters], str],
) -> Update:
    """Decode a believable answer's parameters, once, and check them."""
    arrays: Parameters = {}
    problem = ""
    try:
        with checked_reply():
            arrays = read_arrays(reply, shapes)
            problem = check(arrays)
    except ReplyError as error:
        problem = str(error)
    message = rebuild_reply(reply, TRAIN, report, {} if problem else arrays)
    return Update(client, message, report, cost, problem)


def _answers(
    now: Round, replies: Iterable[Message], client_of: ClientOf
) -> Iterator[tuple[int, Message]]:
    """Yield the replies that carry content, with their clients; the others are failures."""
    for reply in replies:
        client = client_of(reply.metadata.src_node_id)
        if reply.has_error() and reply.error.code == BUDGET_CODE and client is not None:
            now.exhausted.add(client)
        if reply.has_error() or client is None:
            now.fail(client, reply.error.reason if reply.has_error() else "unknown node")
        else:
            yield client, reply


def last_line(text: str) -> str:
    """Return what happened: a client's exception comes as a traceback that ends with it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else text


def collect_evaluations(
    now: Round,
    replies: Iterable[Message],
    client_of: ClientOf,
    check: Callable[[int, EvaluateReport], str],
) -> dict[int, EvaluateReport]:
    """Unpack evaluation answers by client; failures are noted, empty answers left out.

    Parameters
    ----------
    now : Round
        The round under way; its failures and evaluation costs are filled in.
    replies : iterable of Message
        What arrived.
    client_of : callable
        Finds the client behind a node id.
    check : callable
        Says why a client's numbers cannot be true, or returns an empty string.
    """
    reports: dict[int, EvaluateReport] = {}
    answered: set[int] = set()
    for client, reply in _answers(now, replies, client_of):
        try:
            with checked_reply():
                report = read_report(reply, EvaluateReport)
                if problem := check(client, report):
                    raise ReplyError(problem)
                report = now.timed(client, report)
                sizes = now.sent_to_evaluate.get(client, 0), payload_bytes(reply.content)
                cost = cost_of(report, *sizes)
        except ReplyError as error:
            now.fail(client, f"evaluation dropped: {error}")
            continue
        answered.add(client)
        if report.rows:
            reports[client], now.evaluation[client] = report, cost
    for client in sorted({*now.sent_to_evaluate} - answered - now.failed):
        now.fail(client, "no evaluation in time")
    return reports


def adaptation_cost(report: AdaptReport, bytes_down: int, bytes_up: int) -> Cost:
    """Turn a part in a round of the shared adapter into its line of the ledger."""
    return Cost(
        bytes_up=bytes_up,
        bytes_down=bytes_down,
        llm_tokens=report.llm_tokens,
        llm_seconds=report.llm_seconds,
    )


def summed_up(reports: Mapping[int, EvaluateReport], counted: Mapping[int, int]) -> MetricRecord:
    """Add evaluations up by rows: mean loss (nats), and accuracy from the confusions.

    Parameters
    ----------
    reports : mapping
        Evaluations by client, at least one, each with rows.
    counted : mapping
        Rows that each client counts for (`counted_rows`).
    """
    rows = sum(counted[client] for client in reports)
    loss = sum(counted[k] * report.loss for k, report in reports.items()) / rows
    right = sum(
        diagonal(report.confusion) * counted[k] / report.rows for k, report in reports.items()
    )
    return MetricRecord({"loss": loss, "accuracy": right / rows, "rows": rows})


def diagonal(confusion: list[int]) -> int:
    """Sum the diagonal of a flattened square matrix."""
    classes = int(len(confusion) ** 0.5)
    return sum(confusion[:: classes + 1])
