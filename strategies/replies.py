"""What came back in a round: checked updates, evaluations, and failures with their reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from logging import WARNING

from flwr.app import Message, MetricRecord
from flwr.common.logger import log

from federation import Cost
from federation.messages import (
    BUDGET_CODE,
    AdaptReport,
    AdoptReport,
    EvaluateReport,
    Parameters,
    TrainReport,
    payload_bytes,
    read_parameters,
    read_report,
)
from llm.agent import Decision
from strategies.state import cost_of

CONFUSIONS = ("confusion", "logistic_projected", "logistic_full")
"""Fields of an `EvaluateReport` that hold a confusion; empty ones were not asked for."""

ClientOf = Callable[[int], int | None]
"""Finds the client behind a node id."""


@dataclass(frozen=True)
class Update:
    """A participant's answer after the checks; ``dropped`` says why it does not count."""

    client: int
    message: Message
    report: TrainReport
    cost: Cost
    dropped: str = ""


@dataclass
class Round:
    """What a round is made of while it is under way."""

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

    def fail(self, client: int | None, why: str | None) -> None:
        """Note a failure, in one line, and log it."""
        who = "a lost node" if client is None else f"client {client}"
        text = " ".join((why or "no reason given").split())[:300]
        self.failures.append(f"{who}: {text}")
        if client is not None:
            self.failed.add(client)
        log(WARNING, "round %d, %s: %s", self.number, who, text)


def collect_updates(
    now: Round,
    replies: Iterable[Message],
    client_of: ClientOf,
    believable: Callable[[int, TrainReport], str],
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
    check : callable
        Says why parameters may not be aggregated, or returns an empty string.
    """
    for client, reply in _answers(now, replies, client_of):
        try:
            report = read_report(reply, TrainReport)
            impossible = believable(client, report)
            problem = impossible or check(read_parameters(reply))
        except (KeyError, TypeError, ValueError) as error:
            now.fail(client, f"malformed reply: {error!r}")
            continue
        if problem:
            now.fail(client, f"update dropped: {problem}")
        if impossible:  # what cannot be believed reaches neither ledger nor history
            continue
        cost = cost_of(report, now.sent[client], payload_bytes(reply.content))
        now.updates[client] = Update(client, reply, report, cost, problem)
    for client in now.decision.participants:
        if client not in now.updates and client not in now.failed:
            now.fail(client, "no reply in time")


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


def check_numbers(
    report: TrainReport, server_round: int, steps: int | None, circuits: int, shots: int
) -> str:
    """Say which of a participant's numbers cannot be true, or return an empty string.

    Parameters
    ----------
    report : TrainReport
        What a client answered.
    server_round : int
        The round under way.
    steps : int or None
        Optimizer steps it was ordered; None if it was not asked to train.
    circuits : int
        Most circuits that its order can cost, by its own report before the run.
    shots : int
        Shots of each, by that report.
    """
    if report.round != server_round:
        return f"it answers round {report.round}"
    if steps is None:
        return "it was not asked to train"
    wrong = implausible(report)
    if wrong:
        return wrong
    if report.steps > steps:
        return f"steps {report.steps} instead of at most {steps}"
    if report.circuits > circuits:
        return f"{report.circuits} circuits of {circuits}"
    most = shots * report.circuits
    return "" if report.shots <= most else f"{report.shots} shots of {most}"


def check_evaluation(report: EvaluateReport, rows: int, classes: int) -> str:
    """Say which of an evaluation's numbers cannot be true, or return an empty string.

    Parameters
    ----------
    report : EvaluateReport
        What a client answered.
    rows : int
        Rows of that split that the client reported before the run.
    classes : int
        Number of classes.
    """
    wrong = implausible(report)
    if wrong:
        return wrong
    if report.rows != rows:
        return f"{report.rows} rows instead of {rows}"
    for confusion in (getattr(report, name) for name in CONFUSIONS):
        if confusion and (len(confusion) != classes**2 or sum(confusion) != rows):
            return f"a confusion of {len(confusion)} numbers adding up to {sum(confusion)}"
    if rows and not report.confusion:
        return "no confusion"
    return ""


def one_line(error: Exception) -> str:
    """Say in one line what is wrong with a reply that could not be read or believed."""
    text = str(error) if type(error) is ValueError else f"malformed reply: {error!r}"
    return " ".join(text.split())[:300]


def last_line(text: str) -> str:
    """Return what happened: a client's exception comes as a traceback that ends with it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else text


def implausible(report: AdaptReport | AdoptReport | TrainReport | EvaluateReport) -> str:
    """Say which field is not what its type says, not finite, or below 0."""
    for item in fields(report):
        value = getattr(report, item.name)
        listed = item.type == "list[int]"
        whole = listed or item.type == "int"
        if listed != isinstance(value, list):
            return f"{item.name} = {value!r} is not a {item.type}"
        for number in value if listed else [value]:
            fine = type(number) is int if whole else type(number) in (int, float)
            # A training loss may be a rounding error below 0: the KL term of equal distributions.
            least = -1e-3 if item.name == "train_loss" else 0
            if not (fine and math.isfinite(number) and number >= least):
                kind = "whole number" if whole else "number"
                return f"{item.name} = {number!r} is not a {kind} of at least 0"
    return ""


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
            report = read_report(reply, EvaluateReport)
            problem = check(client, report)
        except (KeyError, TypeError, ValueError) as error:
            now.fail(client, f"malformed evaluation: {error!r}")
            continue
        if problem:
            now.fail(client, f"evaluation dropped: {problem}")
            continue
        answered.add(client)
        if report.rows:
            reports[client] = report
            sizes = now.sent_to_evaluate.get(client, 0), payload_bytes(reply.content)
            now.evaluation[client] = cost_of(report, *sizes)
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


def summed_up(reports: Collection[EvaluateReport]) -> MetricRecord:
    """Add evaluations up by rows: mean loss (nats), and accuracy from the confusions.

    Parameters
    ----------
    reports : collection of EvaluateReport
        At least one, each with rows.
    """
    rows = sum(report.rows for report in reports)
    loss = sum(report.rows * report.loss for report in reports) / rows
    right = sum(diagonal(report.confusion) for report in reports)
    return MetricRecord({"loss": loss, "accuracy": right / rows, "rows": rows})


def diagonal(confusion: list[int]) -> int:
    """Sum the diagonal of a flattened square matrix."""
    classes = int(len(confusion) ** 0.5)
    return sum(confusion[:: classes + 1])
