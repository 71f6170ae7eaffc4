"""Round 0: wait for the nodes, hear what they are, and fit the one projection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import TYPE_CHECKING

from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from federation import Cost, DataError, Settings, UserError, explain, most_steps
from federation.messages import PREPARE, Parameters, SiteReport, payload_bytes, read_site_report
from server_app.evaluation import check_server_encoder
from server_app.fitting import MomentNotes, fit_on_moments
from strategies import Member, SharedAdapter, add_costs, last_line, train_shared_adapter

if TYPE_CHECKING:
    from data import Projection
    from strategies import Journal


@dataclass(frozen=True)
class Prepared:
    """What round 0 found out.

    Attributes
    ----------
    members : tuple of Member
        The clients by index.
    costs : dict
        What the preparation cost each client: the bytes of its moments.
    projection : Projection
        Fitted on the summed moments of the training rows.
    class_weights : list of float
        Weights of the classes in the clients' loss.
    adapter : SharedAdapter or None
        What the clients have trained together of their language models.
    notes : MomentNotes
        Whose moments the projection does without.
    """

    members: tuple[Member, ...]
    costs: dict[int, Cost]
    projection: Projection
    class_weights: list[float]
    adapter: SharedAdapter | None = None
    notes: MomentNotes = field(default_factory=MomentNotes)

    @property
    def first(self) -> SiteReport:
        """What client 0 says; all agree on data, classes and features."""
        return self.members[0].about


def wait_for_nodes(grid: Grid, settings: Settings) -> list[int]:
    """Wait until the run's clients have all appeared; return their node ids, sorted.

    Raises
    ------
    UserError
        If too few appear within ``run.wait_seconds``, or more than the run has clients.
    """
    wanted = settings.run.clients
    deadline = time.monotonic() + settings.run.wait_seconds
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() > deadline:
            raise UserError(_wrong_number(len(nodes), wanted))
        time.sleep(0.2)
    if len(nodes) > wanted:
        raise UserError(_wrong_number(len(nodes), wanted))
    return nodes


def _wrong_number(nodes: int, wanted: int) -> str:
    return explain(
        f"{nodes} nodes are connected",
        f"run.clients = {wanted}",
        f"start the federation with num-supernodes={wanted}, or set run.clients={nodes}",
    )


def prepare(grid: Grid, settings: Settings, journal: Journal) -> Prepared:
    """Ask every node for its report and moments, and fit the projection on their sum.

    With `llm.federated` the clients train their adapter in between.

    Raises
    ------
    UserError
        With each node's own sentence, if a node cannot take part.
    """
    nodes = wait_for_nodes(grid, settings)
    log(INFO, "preparing %d clients", len(nodes))
    messages = [Message(RecordDict(), node, PREPARE) for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=settings.run.round_timeout))
    answers = _read(replies, len(nodes))
    members = tuple(member for member, _, _ in answers)
    count = [sum(column) for column in zip(*(m.about.class_rows for m in members), strict=True)]
    if sum(rows > 0 for rows in count) < 2:
        raise DataError(
            explain(
                f"training rows by class {count} over all clients",
                "rows of at least two classes",
                "check the label column or data.labels",
            )
        )
    sums = [arrays for _, arrays, _ in answers]
    costs = {member.client: Cost(bytes_up=size) for member, _, size in answers}
    # Before anything is paid for.
    check_server_encoder(settings, members[0].about)
    adapter = None
    if settings.llm.federated != "none":
        adapter = train_shared_adapter(grid, settings, members, journal)
        costs = add_costs(costs, adapter.costs)
        if settings.features.encoder == "shared":
            sums = [adapter.moments[member.client] for member in members]
    projection, notes = fit_on_moments(settings, [member.about for member in members], sums)
    return Prepared(
        members=members,
        costs=costs,
        projection=projection,
        class_weights=class_weights(count, settings.train.class_weights),
        adapter=adapter,
        notes=notes,
    )


def sent_or_withheld(counted: Sequence[float], rows: Sequence[int]) -> bool:
    """Say whether moments are of all rows of a class or of none; both by class."""
    pairs = zip(counted, rows, strict=False)
    return len(counted) == len(rows) and all(sent in (0, held) for sent, held in pairs)


def class_weights(count: Sequence[int], kind: str) -> list[float]:
    """Return the classes' weights: all ones, or N / (C n_c) with N the rows of all classes.

    A class nobody holds gets weight 1: it never appears in a loss.

    Parameters
    ----------
    count : sequence of int, length C
        Training rows n_c of each class over all clients.
    kind : str
        ``none`` or ``balanced``.
    """
    if kind == "none":
        return [1.0] * len(count)
    total = sum(count)
    return [total / (len(count) * rows) if rows else 1.0 for rows in count]


def _read(replies: Sequence[Message], nodes: int) -> list[tuple[Member, Parameters, int]]:
    """Unpack the answers (with their bytes), ordered by client; every node must take part."""
    problems = [r.error.reason or "no reason given" for r in replies if r.has_error()]
    if problems:
        short = dict.fromkeys(last_line(problem) for problem in problems)
        raise UserError(f"{len(problems)} of {nodes} clients cannot start: {' | '.join(short)}")
    if len(replies) < nodes:
        raise UserError(
            explain(
                f"{len(replies)} of {nodes} clients answered in time",
                "all of them",
                "look at the clients' logs or raise run.round_timeout",
            )
        )
    answers = []
    for reply in replies:
        try:
            about, arrays = read_site_report(reply)
            _check_self(about, arrays)
            check_costs(about)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(malformed(reply, error)) from None
        size = payload_bytes(reply.content)
        answers.append((Member(reply.metadata.src_node_id, about), arrays, size))
    answers.sort(key=lambda answer: answer[0].client)
    check_agreement([member.about for member, _, _ in answers])
    return answers


def malformed(reply: Message, error: Exception) -> str:
    """Say that a node's report cannot be read."""
    node = reply.metadata.src_node_id
    return (
        f"node {node} sent a malformed report ({error!r}); give all nodes the same version of the "
        "app."
    )


def _check_self(about: SiteReport, arrays: Parameters) -> None:
    """Refuse a report whose rows do not add up: weights and evaluations are held against it."""
    counted = arrays["count"].tolist()
    rows = (about.train_rows, about.val_rows, about.test_rows, *about.class_rows)
    added = about.train_rows == sum(about.class_rows)
    if min(rows) < 0 or not added or not sent_or_withheld(counted, about.class_rows):
        raise UserError(
            explain(
                f"client {about.client} reports {about.train_rows} training rows, by class "
                f"{about.class_rows}, and moments of {counted}",
                "the same numbers, or no moments of a class",
                "give all nodes the same version of the app",
            )
        )


def check_costs(about: SiteReport) -> None:
    """Refuse a report of costs that are none: budgets and prices are reckoned with them."""
    for name in ("circuits_per_step", "circuits_fixed", "shots_per_circuit"):
        value = getattr(about, name)
        if type(value) is not int or value < 0:
            raise UserError(
                explain(
                    f"client {about.client} reports {name} = {value!r}",
                    "a whole number of at least 0",
                    "give all nodes the same version of the app",
                )
            )


def check_agreement(reports: Sequence[SiteReport]) -> None:
    """Refuse two nodes of one index, and nodes that mean different things."""
    indices = [report.client for report in reports]
    if len(set(indices)) != len(indices):
        raise UserError(
            explain(
                f"nodes with partition-id {indices}",
                "a different one for each node",
                "give each node its own --node-config partition-id",
            )
        )
    for name in ("classes", "kind", "features", "encoder"):
        found = {str(getattr(report, name)) for report in reports}
        if len(found) > 1:
            raise UserError(
                explain(
                    f"clients disagree on {name}: {' and '.join(sorted(found))}",
                    "the same on every node",
                    "give all nodes the same data.labels, features and llm.model",
                )
            )


def tell_bound(settings: Settings, members: Sequence[Member]) -> None:
    """Say that the agent's steps are held where a client's device costs money."""
    most, wanted = (
        most_steps(settings, [m.about.backend for m in members]),
        settings.train.max_steps,
    )
    if most < wanted:
        said = "a device costs money and no budget is set: at most %d steps a round, not %d"
        log(WARNING, said, most, wanted)
