"""Rounds of averaging one adapter of the local language models, before the quantum rounds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError, with_idle
from core.formatting import byte_size
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
    unpack_parameters,
)
from core.received import read_arrays, read_moments, read_report
from core.settings.secure import quorum_words
from strategies.aggregation import aggregate
from strategies.aggregators import Contribution, build_aggregator
from strategies.decisions import Decision
from strategies.journal import RunJournal
from strategies.plausibility import check_adaptation
from strategies.state import FederationState, Member, add_costs, cost_of, rows_that_count
from strategies.update_validation import Round, refuse

Answers = Mapping[int, tuple[AdaptReport, Parameters]]
"""Checked reports and adapters of a round, by client."""


@dataclass(frozen=True)
class SharedAdapter:
    """The adapter that all clients have agreed on.

    Attributes
    ----------
    kind : str
        `llm.federated`.
    rounds : int
        Rounds of averaging.
    loss, accuracy : float
        On the clients' validation rows, averaged by rows.
    arrays : dict of arrays
        The averaged parameters.
    costs : dict
        What it has cost each client.
    moments : dict
        The clients' moments of the features that it makes, by client.
    """

    kind: str
    rounds: int
    loss: float
    accuracy: float
    arrays: Parameters
    costs: dict[int, Cost] = field(default_factory=dict)
    moments: dict[int, Parameters] = field(default_factory=dict)

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
    grid: Grid, settings: Settings, members: Sequence[Member], journal: RunJournal
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
    journal : RunJournal
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
    training = _AdapterTraining(grid, settings, FederationState.begin(members, settings), journal)
    training.announce()
    arrays: Parameters = {}
    for number in range(1, settings.llm.rounds + 1):
        arrays = training.average(number, arrays)
    return training.hand_out(arrays)


@dataclass(frozen=True)
class _AdapterTraining:
    """The training of one adapter: its parts share the federation, and add up the costs."""

    grid: Grid
    settings: Settings
    state: FederationState
    journal: RunJournal
    costs: dict[int, Cost] = field(default_factory=dict)

    def announce(self) -> None:
        """Write down how much will be sent, before it is."""
        llm, clients = self.settings.llm, len(self.state.members)
        size = self.state.members[0].about.adapter_bytes
        # Nobody is sent anything in round 1; after the last, everybody gets the adapter.
        everything = 2 * size * llm.rounds * clients
        log(
            INFO,
            "shared adapter (%s): %s each way for each of %d clients in %d rounds, %s in all",
            llm.federated,
            byte_size(size),
            clients,
            llm.rounds,
            byte_size(everything),
        )
        self.journal.event(
            {
                "event": "adapter-begin",
                "kind": llm.federated,
                "bytes": size,
                "bytes_in_all": everything,
                "rounds": llm.rounds,
                "clients": clients,
            }
        )

    def average(self, number: int, arrays: Parameters) -> Parameters:
        """Let the clients train the adapter for one round; return the mean of theirs."""
        now = self._begin(number)
        answers = self._trained(now, pack_instruction(arrays, AdaptIns(number)))
        if len(answers) < self.settings.run.min_replies:
            raise now.too_few_replies(len(answers), *quorum_words(self.settings))
        rows = self.state.weights  # as reported before the run, and capped
        parts = [Contribution(a, rows[k], report) for k, (report, a) in sorted(answers.items())]
        self._note_round(now, answers, rows)
        aggregator = build_aggregator(self.settings)
        found = aggregate(self.settings, number, parts, aggregator, arrays)
        return unpack_parameters(found.arrays)

    def _begin(self, number: int) -> Round:
        decision = Decision(participants=tuple(self.state.members), steps={})
        return Round(number, decision, wait=0.0, of=" of the shared adapter")

    def _send(self, content: RecordDict, kind: str) -> list[Message]:
        nodes = [member.node_id for member in self.state.members.values()]
        messages = [Message(content, node, kind) for node in nodes]
        timeout = self.settings.run.round_timeout
        return list(self.grid.send_and_receive(messages, timeout=timeout))

    def _trained(self, now: Round, content: RecordDict) -> Answers:
        """Collect a round's reports and adapters; those that count are of one kind."""
        answers: dict[int, tuple[AdaptReport, Parameters]] = {}
        costs: dict[int, Cost] = {}
        for client, reply in now.answers(self._send(content, ADAPT), self.state.client_of):
            with now.failing(client, "dropped: "):
                report = read_report(reply, AdaptReport)
                limits = self.state.training_limits(client, 0, self.settings)
                refuse(check_adaptation(report, now.number, limits))
                report = now.timed(client, report)
                sizes = payload_bytes(content), payload_bytes(reply.content)
                costs[client] = cost_of(report, *sizes)
                answers[client] = report, read_arrays(reply)
        for client in _unlike_most(answers):
            del answers[client]
            now.fail(client, "its adapter is not that of the others: other model, settings or seed")
        now.expect(set(now.decision.participants) - set(answers), "no reply in time")
        self._spend(costs)
        return answers

    def _note_round(self, now: Round, answers: Answers, rows: Mapping[int, int]) -> None:
        """Write down a round of averaging."""
        stepped = [(rows[k], report.loss) for k, (report, _) in answers.items() if report.steps]
        loss, rounds = _mean_by_rows(stepped), self.settings.llm.rounds
        text = f"training loss {loss:.3f}" if stepped else "no step is left"
        log(INFO, "shared adapter, round %d/%d: %s", now.number, rounds, text)
        self.journal.event(
            {
                "event": "adapter",
                "round": now.number,
                "rounds": rounds,
                "clients": sorted(answers),
                "reused": sum(report.reused for report, _ in answers.values()),
                "stepped": len(stepped),
                "loss": loss,
                "failures": now.failures,
                "seconds": time.monotonic() - now.began,
            }
        )

    def _spend(self, costs: Mapping[int, Cost]) -> None:
        """Add one barrier's costs, with the waiting at it."""
        self.costs.update(add_costs(self.costs, with_idle(costs)))

    def hand_out(self, arrays: Parameters) -> SharedAdapter:
        """Give every client the adapter; each must take it, for it is its teacher and encoder."""
        now, content = self._begin(0), RecordDict({ARRAYS: pack_parameters(arrays)})
        reports: dict[int, AdoptReport] = {}
        moments: dict[int, Parameters] = {}
        costs: dict[int, Cost] = {}
        replies = self._send(content, ADOPT)
        for client, reply in now.answers(replies, self.state.client_of, brief=True):
            with now.failing(client, ""):
                report, about = read_report(reply, AdoptReport), self.state.members[client].about
                moments[client] = read_moments(reply, about)
                if report.rows != about.val_rows:
                    raise ValueError(f"{report.rows} validation rows instead of {about.val_rows}")
                reports[client] = report
                costs[client] = Cost(
                    bytes_up=payload_bytes(reply.content),
                    bytes_down=payload_bytes(content),
                    llm_seconds=report.llm_seconds,
                )
        if missing := sorted(set(self.state.members) - set(reports)):
            raise UserError(
                f"clients {missing} did not take the shared adapter "
                f"({'; '.join(now.failures) or 'no reply in time'})",
                "every client of the run",
                "look at their logs or raise run.round_timeout",
            )
        self._spend(costs)
        rows = rows_that_count(self.state.members.values(), "val_rows", self.settings)
        llm = self.settings.llm
        shared = SharedAdapter(
            kind=llm.federated,
            rounds=llm.rounds,
            loss=_mean_by_rows([(rows[k], report.loss) for k, report in reports.items()]),
            accuracy=_mean_by_rows([(rows[k], report.accuracy) for k, report in reports.items()]),
            arrays=arrays,
            costs=self.costs,
            moments=moments,
        )
        text = "shared adapter: loss %.3f, accuracy %.1f %% on the clients' validation rows"
        log(INFO, text, shared.loss, 100 * shared.accuracy)
        seconds = time.monotonic() - now.began
        self.journal.event({"event": "adapter-done", **shared.facts(), "seconds": seconds})
        return shared


def _unlike_most(answers: Answers) -> list[int]:
    """Return the clients whose adapter differs from most in start, names, shapes or data types."""
    kinds = {
        client: (report.start, tuple((k, a.shape, str(a.dtype)) for k, a in sorted(arrays.items())))
        for client, (report, arrays) in answers.items()
    }
    usual = Counter(kinds[client] for client in sorted(kinds)).most_common(1)
    return [client for client, kind in kinds.items() if kind != usual[0][0]]


def _mean_by_rows(pairs: Sequence[tuple[int, float]]) -> float:
    total = sum(rows for rows, _ in pairs)
    return sum(rows * value for rows, value in pairs) / total if total else 0.0
