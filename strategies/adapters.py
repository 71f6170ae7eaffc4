"""Rounds of averaging one adapter of the local language models, before the quantum rounds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError, byte_size, with_idle
from core.formatting import printable
from core.messages import (
    ADAPT,
    ADOPT,
    ARRAYS,
    AdaptIns,
    AdaptReport,
    AdoptReport,
    Parameters,
    pack_instruction,
    pack_parameters,
    payload_bytes,
)
from core.received import (
    ReplyError,
    checked_reply,
    read_arrays,
    read_moments,
    read_report,
    rebuild_reply,
)
from strategies.aggregation import aggregate, weigh
from strategies.journal import Journal
from strategies.plausibility import (
    Limits,
    check_adaptation,
    most_tokens,
    within_time,
)
from strategies.state import Member, add_costs, rows_that_count
from strategies.update_validation import adaptation_cost, last_line

Signature = tuple[int, tuple[tuple[str, tuple[int, ...], str], ...]]
"""What all sites must have alike: the start that they drew, and the arrays' names and shapes."""


@dataclass
class SharedAdapter:
    """An adapter under way, and in the end the one that all have agreed on.

    Attributes
    ----------
    arrays : dict of arrays
        The averaged parameters; empty before the first round.
    costs : dict
        What it has cost each client.
    moments : dict
        What the clients told of the features that it makes, by client.
    kind : str
        `llm.federated`.
    rounds : int
        Rounds of averaging done.
    loss, accuracy : float
        Of the final adapter on the clients' validation rows, averaged by rows.
    """

    arrays: Parameters = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)
    moments: dict[int, Parameters] = field(default_factory=dict)
    kind: str = ""
    rounds: int = 0
    loss: float = 0.0
    accuracy: float = 0.0

    def spend(self, costs: Mapping[int, Cost]) -> None:
        """Add one barrier's costs, with the waiting at it."""
        self.costs = add_costs(self.costs, with_idle(costs))

    def facts(self) -> dict[str, Any]:
        """Return its part of the summary."""
        size = sum(array.nbytes for array in self.arrays.values())
        return {
            "kind": self.kind,
            "rounds": self.rounds,
            "bytes": size,
            "loss": self.loss,
            "accuracy": self.accuracy,
        }


def train_shared_adapter(
    grid: Grid, settings: Settings, members: Sequence[Member], journal: Journal
) -> SharedAdapter:
    """Let all clients train one adapter together, and give it to them.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    settings : Settings
        The run's settings; `llm.federated` is on.
    members : sequence of Member
        The clients.
    journal : Journal
        Gets an ``adapter`` event a round, and one at the end.

    Returns
    -------
    SharedAdapter
        With every client's moments of the features that it makes.

    Raises
    ------
    UserError
        If a round has too few valid replies, or a client cannot take the adapter.
    """
    _announce(settings, members, journal)
    shared = SharedAdapter(kind=settings.llm.federated)
    for number in range(1, settings.llm.rounds + 1):
        _round(grid, settings, members, journal, shared, number)
    _hand_out(grid, settings, members, journal, shared)
    return shared


def _announce(settings: Settings, members: Sequence[Member], journal: Journal) -> None:
    """Say what will be sent, before it is."""
    size, rounds = members[0].about.adapter_bytes, settings.llm.rounds
    # Nobody is sent anything in round 1; after the last, everybody gets the adapter.
    everything = 2 * size * rounds * len(members)
    log(
        INFO,
        "shared adapter (%s): %s each way for each of %d clients in %d rounds, %s in all",
        settings.llm.federated,
        byte_size(size),
        len(members),
        rounds,
        byte_size(everything),
    )
    journal.event(
        {
            "event": "adapter-begin",
            "kind": settings.llm.federated,
            "bytes": size,
            "bytes_in_all": everything,
            "rounds": rounds,
            "clients": len(members),
        }
    )


def _round(
    grid: Grid,
    settings: Settings,
    members: Sequence[Member],
    journal: Journal,
    shared: SharedAdapter,
    number: int,
) -> None:
    began = time.monotonic()
    content = pack_instruction(shared.arrays, AdaptIns(number))
    replies = _ask(grid, settings, members, content, ADAPT)
    now = _Replies(settings, members, payload_bytes(content))
    now.collect(replies, number, time.monotonic() - began)
    answers, failures = now.answers, now.failures()
    if len(answers) < settings.run.min_replies:
        raise UserError(
            f"round {number} of the shared adapter has {len(answers)} valid replies of "
            f"{len(members)} ({'; '.join(failures) or 'no failure reported'})",
            f"at least run.min_replies = {settings.run.min_replies}",
            "mend those clients or lower run.min_replies",
        )
    for problem in failures:
        log(WARNING, "shared adapter, round %d, %s", number, problem)
    shared.spend(now.costs)
    shared.arrays, shared.rounds = _averaged(settings, members, answers, number), number
    rows = rows_that_count(members, "train_rows", settings)
    stepped = [(rows[k], report.loss) for k, (report, _) in answers.items() if report.steps]
    loss = _by_rows(stepped)
    told = f"training loss {loss:.3f}" if stepped else "no step is left"
    log(INFO, "shared adapter, round %d/%d: %s", number, settings.llm.rounds, told)
    journal.event(
        {
            "event": "adapter",
            "round": number,
            "rounds": settings.llm.rounds,
            "clients": sorted(answers),
            "reused": sum(report.reused for report, _ in answers.values()),
            "stepped": len(stepped),
            "loss": loss,
            "failures": failures,
            "seconds": time.monotonic() - began,
        }
    )


def _ask(
    grid: Grid, settings: Settings, members: Sequence[Member], content: RecordDict, kind: str
) -> list[Message]:
    orders = [Message(content, member.node_id, kind) for member in members]
    return list(grid.send_and_receive(orders, timeout=settings.run.round_timeout))


@dataclass
class _Replies:
    """What came back in a round of averaging.

    Attributes
    ----------
    settings : Settings
        The run's settings.
    members : sequence of Member
        Who was asked.
    bytes_down : int
        What each was sent.
    answers : dict
        Reports that count, by client, with messages built anew of what was checked.
    costs : dict
        What every believable answer cost, counted or not.
    wrong : dict
        Why a client's answer does not count.
    lost : list of str
        What Flower tells of nodes under an id of its own.
    """

    settings: Settings
    members: Sequence[Member]
    bytes_down: int
    answers: dict[int, tuple[AdaptReport, Message]] = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def collect(self, replies: Iterable[Message], number: int, seconds: float) -> None:
        """Sort a round's replies, which took so many seconds; those that count are of one kind."""
        members = {member.node_id: member for member in self.members}
        marks: dict[int, Signature] = {}
        for reply in replies:
            member = members.get(reply.metadata.src_node_id)
            if member is None:
                why = reply.error.reason if reply.has_error() else "nobody of this run"
                self.lost.append(f"a lost node: {printable(why)}")
                continue
            client = member.client
            try:
                with checked_reply():
                    report = _read(reply, number, member, self.settings)
                    report, cut = within_time(report, seconds, 0.0)
                    sizes = self.bytes_down, payload_bytes(reply.content)
                    self.costs[client] = adaptation_cost(report, *sizes)
                    arrays = read_arrays(reply)
            except ReplyError as error:
                self.wrong[client] = str(error)
                continue
            if cut:
                log(WARNING, "shared adapter, round %d, client %d: %s", number, client, cut)
            marks[client] = _signature(arrays, report.start)
            self.answers[client] = report, rebuild_reply(reply, ADAPT, report, arrays)
        self._drop_others(marks)

    def _drop_others(self, marks: Mapping[int, Signature]) -> None:
        """Drop adapters that are not like most."""
        if not marks:
            return
        usual = Counter(marks[client] for client in sorted(marks)).most_common(1)[0][0]
        for client in [client for client, mark in marks.items() if mark != usual]:
            del self.answers[client]
            why = "its adapter is not that of the others: other model, settings or seed"
            self.wrong[client] = why

    def failures(self) -> list[str]:
        """Say what is wrong, client by client."""
        told = dict(self.wrong)
        for member in self.members:
            if member.client not in self.answers:
                told.setdefault(member.client, "no reply in time")
        return [f"client {client}: {why}" for client, why in sorted(told.items())] + self.lost


def _read(reply: Message, number: int, member: Member, settings: Settings) -> AdaptReport:
    """Unpack an answer's numbers; ValueError says what is wrong with them."""
    if reply.has_error():
        raise ValueError(reply.error.reason or "no reason given")
    report, about = read_report(reply, AdaptReport), member.about
    limits = Limits(about.train_rows, tokens=most_tokens(about, settings))
    if problem := check_adaptation(report, number, limits):
        raise ValueError(f"dropped: {problem}")
    return report


def _signature(arrays: Parameters, start: int) -> Signature:
    """Return what an adapter must have alike with the others."""
    return start, tuple((name, one.shape, str(one.dtype)) for name, one in sorted(arrays.items()))


def _averaged(
    settings: Settings,
    members: Sequence[Member],
    answers: Mapping[int, tuple[AdaptReport, Message]],
    number: int,
) -> Parameters:
    """Average by the run's own aggregation rule; rows as reported before the run, and capped."""
    rows = rows_that_count(members, "train_rows", settings)
    weigh([reply for _, reply in answers.values()], [rows[client] for client in answers])
    messages = [answers[client][1] for client in sorted(answers)]
    arrays, _ = aggregate(settings, number, messages)
    assert arrays is not None  # there are replies, and they are alike
    return {name: np.array(array.numpy()) for name, array in arrays.items()}


def _hand_out(
    grid: Grid,
    settings: Settings,
    members: Sequence[Member],
    journal: Journal,
    shared: SharedAdapter,
) -> None:
    """Give every client the adapter; each must take it, for it is its teacher and encoder."""
    began = time.monotonic()
    content = RecordDict({ARRAYS: pack_parameters(shared.arrays)})
    by_node = {member.node_id: member for member in members}
    reports: dict[int, AdoptReport] = {}
    costs: dict[int, Cost] = {}
    problems = []
    for reply in _ask(grid, settings, members, content, ADOPT):
        member = by_node.get(reply.metadata.src_node_id)
        who = f"client {member.client}" if member else "a lost node"
        try:
            with checked_reply():
                report, moments = _taken(reply, member)
        except ReplyError as error:
            problems.append(f"{who}: {error}")
            continue
        client = by_node[reply.metadata.src_node_id].client
        reports[client], shared.moments[client] = report, moments
        costs[client] = Cost(
            bytes_up=payload_bytes(reply.content),
            bytes_down=payload_bytes(content),
            llm_seconds=report.llm_seconds,
        )
    missing = sorted({member.client for member in members} - set(reports))
    if missing:
        raise UserError(
            f"clients {missing} did not take the shared adapter "
            f"({'; '.join(problems) or 'no reply in time'})",
            "every client of the run",
            "look at their logs or raise run.round_timeout",
        )
    shared.spend(costs)
    rows = rows_that_count(members, "val_rows", settings)
    shared.loss = _by_rows([(rows[k], report.loss) for k, report in reports.items()])
    shared.accuracy = _by_rows([(rows[k], report.accuracy) for k, report in reports.items()])
    said = "shared adapter: loss %.3f, accuracy %.1f %% on the clients' validation rows"
    log(INFO, said, shared.loss, 100 * shared.accuracy)
    seconds = time.monotonic() - began
    journal.event({"event": "adapter-done", **shared.facts(), "seconds": seconds})


def _taken(reply: Message, member: Member | None) -> tuple[AdoptReport, Parameters]:
    """Unpack an answer to ADOPT; ValueError says what is wrong with it."""
    if reply.has_error():
        raise ValueError(last_line(reply.error.reason or "no reason given"))
    if member is None:
        raise ValueError("nobody of this run")
    report, moments = read_report(reply, AdoptReport), read_moments(reply, member.about)
    if report.rows != member.about.val_rows:
        raise ValueError(f"{report.rows} validation rows instead of {member.about.val_rows}")
    return report, moments


def _by_rows(pairs: Sequence[tuple[int, float]]) -> float:
    total = sum(rows for rows, _ in pairs)
    return sum(rows * value for rows, value in pairs) / total if total else 0.0
