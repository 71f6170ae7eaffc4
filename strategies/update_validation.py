"""What came back in a round: checked updates, evaluations, and failures with their reasons."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from logging import WARNING
from typing import Any

from flwr.app import Message, MetricRecord
from flwr.common.logger import log

from core import Cost, Settings, UserError
from core.formatting import printable
from core.messages import (
    ARRAYS,
    BUDGET_CODE,
    EvaluateReport,
    Parameters,
    TrainReport,
    payload_bytes,
)
from core.received import ReplyError, checked_reply, read_arrays, read_report
from core.secure_messages import KEYS_CODE
from strategies.aggregators import Contribution
from strategies.decisions import Decision
from strategies.layerwise import shapes_of, widened
from strategies.plausibility import Timed, check_evaluation, check_training, within_time
from strategies.state import FederationState, cost_of
from strategies.updates import longest_norms, update_norm

Take = Callable[[int, Message], Parameters]
"""Reads a client's parameters out of its reply; raises what is wrong with them."""


@dataclass(frozen=True)
class Update:
    """A participant's checked answer; ``dropped`` says why its parameters do not count.

    ``arrays`` are its parameters, decoded and checked; empty if they were dropped.
    """

    client: int
    arrays: Parameters
    report: TrainReport
    cost: Cost
    dropped: str = ""

    def weighing(self, rows: int, weighting: str = "rows") -> Contribution:
        """Return the update as what an aggregation takes.

        Parameters
        ----------
        rows : int
            Rows that its site counts for.
        weighting : str
            As `aggregation.weighting`; ``noise``: times what the site's device is worth.
        """
        weight = rows * self.report.weight if weighting == "noise" else rows
        return Contribution(self.arrays, weight, self.report)


@dataclass
class Round:
    """What a round is made of while it is under way.

    Attributes
    ----------
    number : int
        From 1.
    decision : Decision
        Who trains, and for how many steps.
    sent, sent_to_evaluate : dict
        Bytes of the messages that went out, by client.
    updates : dict
        Checked answers by client.
    counted : tuple of Update
        Those that were aggregated.
    shares : dict
        By what each one's distance to the others was multiplied, by client.
    failures : list of str
        What went wrong, a line each.
    failed, exhausted : set of int
        Clients whose message failed, and those of them whose own budget is spent.
    keyless : set of int
        Clients that have lost their keys of secure aggregation.
    evaluation : dict
        Cost of federated evaluation by client.
    groups : list of dict
        Under secure aggregation, what the round's event says of its groups.
    opened : dict
        The same groups' means by their clients, of those that were opened.
    lost : bool
        Whether it has too few replies to be aggregated, and the run goes on.
    wait : float
        Longest wait for one job of a client, seconds.
    of : str
        Of what it is a round where it trains no quantum model, for log and errors.
    began : float
        When the round began, by the monotonic clock, seconds.
    """

    number: int
    decision: Decision
    sent: dict[int, int] = field(default_factory=dict)
    sent_to_evaluate: dict[int, int] = field(default_factory=dict)
    updates: dict[int, Update] = field(default_factory=dict)
    counted: tuple[Update, ...] = ()
    shares: dict[int, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    exhausted: set[int] = field(default_factory=set)
    keyless: set[int] = field(default_factory=set)
    evaluation: dict[int, Cost] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    opened: dict[tuple[int, ...], Contribution] = field(default_factory=dict)
    lost: bool = False
    wait: float = math.inf
    of: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def title(self) -> str:
        """What log and errors call the round."""
        return f"round {self.number}{self.of}"

    @property
    def aggregated(self) -> tuple[int, ...]:
        """Clients whose updates were aggregated."""
        return tuple(update.client for update in self.counted)

    def count(self, updates: Sequence[Update], shares: Sequence[float]) -> None:
        """Note which updates were aggregated, and how near each was moved to the others."""
        self.counted = tuple(updates)
        self.shares = dict(zip(self.aggregated, shares, strict=True))

    def note_sums(
        self, groups: Sequence[dict[str, Any]], opened: Mapping[tuple[int, ...], Contribution]
    ) -> None:
        """Note a round's groups, and the contributions of those whose sum was opened."""
        self.groups, self.opened = list(groups), dict(opened)

    def leave_out(self, client: int, why: str) -> None:
        """Leave a client's update out: it could not be summed, which need not be its fault."""
        if client in self.updates and not self.updates[client].dropped:
            self.updates[client] = replace(self.updates[client], dropped=why)

    def drop(self, client: int, why: str) -> None:
        """Drop an update that was taken."""
        self.updates[client] = replace(self.updates[client], arrays={}, dropped=why)
        self.fail(client, f"update dropped: {why}")

    def lose(self) -> None:
        """Note that the round has too few replies."""
        self.lost = True

    def too_few_replies(self, valid: int, accepted: str, instead: str) -> UserError:
        """Return the error of a round that has too few replies, in the words of `quorum_words`."""
        return UserError(
            f"{self.title} has {valid} valid replies of {len(self.decision.participants)} "
            f"({'; '.join(self.failures) or 'no failure reported'})",
            accepted,
            f"check those clients{instead}",
        )

    def timed(self, client: int, report: Timed) -> Timed:
        """Cut a report's seconds to what can have passed, with a warning."""
        report, cut = within_time(report, time.monotonic() - self.began, self.wait)
        if cut:
            log(WARNING, "%s, client %d: %s", self.title, client, cut)
        return report

    def fail(self, client: int | None, why: str | None) -> None:
        """Note a failure, in one line, and log it."""
        who = "a lost node" if client is None else f"client {client}"
        text = printable(why or "") or "no reason given"
        self.failures.append(f"{who}: {text}")
        if client is not None:
            self.failed.add(client)
        log(WARNING, "%s, %s: %s", self.title, who, text)

    def answers(
        self,
        replies: Iterable[Message],
        client_of: Callable[[int], int | None],
        *,
        brief: bool = False,
    ) -> Iterator[tuple[int, Message]]:
        """Yield the replies that carry content, with their clients; the others are failures.

        ``brief`` quotes the last line of an error only.
        """
        for reply in replies:
            client = client_of(reply.metadata.src_node_id)
            if reply.has_error():
                if reply.error.code == BUDGET_CODE and client is not None:
                    self.exhausted.add(client)
                if reply.error.code == KEYS_CODE and client is not None:
                    self.keyless.add(client)
                reason = reply.error.reason or ""
                self.fail(client, last_line(reason) if brief else reason)
            elif client is None:
                self.fail(None, "unknown node")
            else:
                yield client, reply

    @contextmanager
    def failing(self, client: int, what: str) -> Iterator[None]:
        """Turn whatever goes wrong with a client's reply into a failure of the round."""
        try:
            with checked_reply():
                yield
        except ReplyError as error:
            self.fail(client, f"{what}{error}")

    def expect(self, clients: Iterable[int], why: str) -> None:
        """Fail the clients that have not failed yet."""
        for client in sorted(set(clients) - self.failed):
            self.fail(client, why)


def last_line(text: str) -> str:
    """Return what happened: a client's exception comes as a traceback that ends with it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else text


def refuse(problem: str) -> None:
    """Raise what is wrong with a reply, if anything is."""
    if problem:
        raise ReplyError(problem)


def collect_updates(
    now: Round,
    replies: Iterable[Message],
    state: FederationState,
    settings: Settings,
    take: Take,
) -> None:
    """Sort training replies into updates and failures; who never answered failed too.

    Parameters
    ----------
    now : Round
        The round under way; its updates and failures are filled in.
    replies : iterable of Message
        What arrived.
    state : FederationState
        The clients, and what their messages can cost.
    settings : Settings
        The run's settings.
    take : callable
        Reads a client's parameters out of its reply (`checked_update`).
    """
    for client, reply in now.answers(replies, state.client_of):
        with now.failing(client, "update dropped: "):
            report = read_report(reply, TrainReport)
            # What cannot be believed reaches neither ledger nor history.
            steps = now.decision.steps.get(client)
            limits = state.training_limits(client, steps or 0, settings)
            refuse(check_training(report, now.number, steps, limits))
            report = now.timed(client, report)
            cost = cost_of(report, now.sent[client], payload_bytes(reply.content))
            # What it cost counts, even if its parameters do not.
            now.updates[client] = Update(client, {}, report, cost)
            _take_arrays(now, client, reply, take)
    now.expect(set(now.decision.participants) - set(now.updates), "no reply in time")


def checked_update(
    reply: Message, reference: Parameters, settings: Settings, depths: Collection[int] = ()
) -> Parameters:
    """Return an update's parameters, in the names and shapes of the global ones.

    Angles of layers that its site lacks are NaN (`strategies.layerwise`).

    Raises
    ------
    ValueError
        If they have others, are no finite numbers, or have moved too far.
    """
    shapes = shapes_of(reply.content.array_records[ARRAYS], reference, depths)
    arrays = widened(read_arrays(reply, shapes), reference)
    refuse(_too_long(arrays, reference, settings))
    return arrays


def _take_arrays(now: Round, client: int, reply: Message, take: Take) -> None:
    """Decode an update's parameters, once, and check them."""
    try:
        with checked_reply():
            arrays = take(client, reply)
    except ReplyError as error:
        now.drop(client, str(error))
    else:
        now.updates[client] = replace(now.updates[client], arrays=arrays)


def _too_long(update: Parameters, reference: Parameters, settings: Settings) -> str:
    """Say that an update is longer than `aggregation.max_norm`.

    None is under central privacy, where each is clipped: to drop one for its length would change
    by how many the sum is divided, and the noise is not made for that.
    """
    norm, most = update_norm(update, reference), settings.aggregation.max_norm
    fits = norm <= most or settings.privacy.dp == "central"
    return "" if fits else f"norm {norm:.3g} of the update is above {most:g}"


def drop_long(now: Round, reference: Parameters, settings: Settings) -> None:
    """Drop the round's updates that are much longer than most; of two neither is.

    Under central privacy none is dropped.

    Parameters
    ----------
    now : Round
        The round, its updates collected; what is dropped is noted there.
    reference : dict of arrays
        The round's global parameters.
    settings : Settings
        The run's settings.
    """
    if settings.privacy.dp == "central":
        return
    ratio = settings.aggregation.norm_ratio
    valid = [update for _, update in sorted(now.updates.items()) if not update.dropped]
    norms = [update_norm(update.arrays, reference) for update in valid]
    bounds = longest_norms(norms, [now.decision.steps[one.client] for one in valid], ratio)
    for update, norm, bound in zip(valid, norms, bounds, strict=True):
        if norm > bound:
            times = f"{ratio:g} times the median"
            now.drop(update.client, f"norm {norm:.3g} of the update is above {bound:.3g}, {times}")


def collect_evaluations(
    now: Round, replies: Iterable[Message], state: FederationState, split: str
) -> dict[int, EvaluateReport]:
    """Unpack evaluation answers by client, in order; failures are noted, empty answers left out.

    Parameters
    ----------
    now : Round
        The round under way; its failures and evaluation costs are filled in.
    replies : iterable of Message
        What arrived.
    state : FederationState
        The clients, and what their messages can cost.
    split : str
        ``validation`` or ``test``.
    """
    reports: dict[int, EvaluateReport] = {}
    for client, reply in now.answers(replies, state.client_of):
        with now.failing(client, "evaluation dropped: "):
            report = read_report(reply, EvaluateReport)
            classes = len(state.members[client].about.classes)
            refuse(check_evaluation(report, classes, state.evaluation_limits(client, split)))
            report = now.timed(client, report)
            sizes = now.sent_to_evaluate.get(client, 0), payload_bytes(reply.content)
            reports[client], now.evaluation[client] = report, cost_of(report, *sizes)
    now.expect(set(now.sent_to_evaluate) - set(reports), "no evaluation in time")
    for client in [client for client, report in reports.items() if not report.rows]:
        del reports[client], now.evaluation[client]
    return dict(sorted(reports.items()))


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
        _diagonal(report.confusion) * counted[k] / report.rows for k, report in reports.items()
    )
    return MetricRecord({"loss": loss, "accuracy": right / rows, "rows": rows})


def _diagonal(confusion: list[int]) -> int:
    """Sum the diagonal of a flattened square matrix."""
    classes = int(len(confusion) ** 0.5)
    return sum(confusion[:: classes + 1])
