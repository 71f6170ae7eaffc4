"""Round 0: wait for the nodes, hear what they are, and fit the one projection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any

from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, DataError, Settings, UserError, explain, most_steps
from core.formatting import printable
from core.messages import (
    PREPARE,
    Parameters,
    SiteReport,
    payload_bytes,
)
from core.received import (
    ReplyError,
    checked_reply,
    read_site_report,
)
from server_app.fitting import MomentNotes, fit_on_moments
from strategies import (
    Member,
    SharedAdapter,
    add_costs,
    last_line,
    rows_that_count,
    train_shared_adapter,
)
from strategies.row_weights import counted_classes, dominance

MOST_SHOTS = 10**8
"""Shots of a circuit; `hardware.precision` may ask for many."""

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
    answers = _read(replies, settings)
    members = tuple(member for member, _, _ in answers)
    check_budgets(members, settings)
    count = rows_by_class(members, settings)
    if sum(rows > 0 for rows in count) < 2:
        raise DataError(
            f"training rows by class {count} over all clients",
            "rows of at least two classes",
            "check the label column or data.labels",
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


def rows_by_class(members: Sequence[Member], settings: Settings) -> list[float]:
    """Return the training rows of each class that count over all clients, length C."""
    rows = {member.client: member.about.class_rows for member in members}
    return counted_classes(rows, rows_that_count(members, "train_rows", settings))


def dominant_sites(members: Sequence[Member], settings: Settings) -> list[str]:
    """Say in a line each which clients dominate by the rows that they declare."""
    names = {"train_rows": "training", "val_rows": "validation", "test_rows": "test"}
    if settings.evaluation.mode == "central":  # then only training rows weigh
        names = {"train_rows": "training"}
    lines = []
    for name, what in names.items():
        rows = {member.client: int(getattr(member.about, name)) for member in members}
        lines += dominance(rows, rows_that_count(members, name, settings), what)
    return lines


def class_weights(count: Sequence[float], kind: str) -> list[float]:
    """Return the classes' weights: all ones, or N / (C n_c) with N the rows of all classes.

    A class nobody holds gets weight 1: it never appears in a loss.

    Parameters
    ----------
    count : sequence of float, length C
        Training rows n_c of each class over all clients.
    kind : str
        ``none`` or ``balanced``.
    """
    if kind == "none":
        return [1.0] * len(count)
    total = sum(count)
    return [total / (len(count) * rows) if rows else 1.0 for rows in count]


def _read(replies: Sequence[Message], settings: Settings) -> list[tuple[Member, Parameters, int]]:
    """Unpack the answers (with their bytes), ordered by client; every node must take part."""
    nodes = settings.run.clients
    problems = [r.error.reason or "no reason given" for r in replies if r.has_error()]
    if problems:
        short = dict.fromkeys(printable(last_line(problem)) for problem in problems)
        raise UserError(f"{len(problems)} of {nodes} clients cannot start: {' | '.join(short)}")
    if len(replies) < nodes:
        raise UserError(
            f"{len(replies)} of {nodes} clients answered in time",
            "all of them",
            "look at the clients' logs or raise run.round_timeout",
        )
    answers = []
    for reply in replies:
        try:
            with checked_reply():
                about, arrays = read_site_report(reply)
                check_site(about, settings)
                size = payload_bytes(reply.content)
        except ReplyError as error:
            raise UserError(malformed(reply, error)) from None
        answers.append((Member(reply.metadata.src_node_id, about), arrays, size))
    answers.sort(key=lambda answer: answer[0].client)
    check_agreement([member.about for member, _, _ in answers])
    return answers


def malformed(reply: Message, error: Exception) -> str:
    """Say that a node's report cannot be true; nothing has been paid for yet."""
    return explain(
        f"node {reply.metadata.src_node_id} sent a report that cannot be used: {error}",
        "what the app's own preparation sends",
        "give all nodes the same version of the app, or start the run without that node",
    )


def check_site(about: SiteReport, settings: Settings) -> None:
    """Hold a site's report against itself and against the run.

    Raises
    ------
    ValueError
        If rows do not add up, the index is none of the run's, or a step is said to cost more
        than the dearest optimiser takes for so many rows. Weights, budgets and prices are
        reckoned with these numbers.
    """
    from quantum import build_ansatz, circuits_per_step

    if about.client >= settings.run.clients:
        raise ValueError(f"client {about.client} of {settings.run.clients}")
    if len(about.class_rows) != len(about.classes) or sum(about.class_rows) != about.train_rows:
        raise ValueError(
            f"client {about.client} reports {about.train_rows} training rows and of its "
            f"{len(about.classes)} classes {about.class_rows}"
        )
    if len(set(about.classes)) < max(2, len(about.classes)):
        raise ValueError(f"client {about.client} reports the classes {about.classes}")
    angles = build_ansatz(settings.quantum, len(about.classes)).angles
    dearest = settings.train.model_copy(update={"optimizer": "adam"})
    for name, most in (
        ("circuits_per_step", circuits_per_step(dearest, about.train_rows, angles)),
        ("circuits_fixed", 2 * about.val_rows + about.train_rows),
        ("shots_per_circuit", MOST_SHOTS),
    ):
        if getattr(about, name) > most:
            raise ValueError(
                f"client {about.client} reports {name} = {getattr(about, name)}, of at most {most}"
            )


def check_budgets(members: Sequence[Member], settings: Settings) -> None:
    """Refuse budgets that do not pay for one evaluation of all sites' rows and the final test.

    Raises
    ------
    UserError
        With the client whose rows cost most: it may declare what it does not have.
    """
    if settings.evaluation.mode != "federated":
        return
    rows = {m.client: m.about.val_rows + m.about.test_rows for m in members}
    shots = {m.client: rows[m.client] * m.about.shots_per_circuit for m in members}
    for unit, left, cost in (
        ("circuits", settings.stop.circuits, rows),
        ("shots", settings.stop.shots, shots),
    ):
        if left and sum(cost.values()) > left:
            dearest = max(cost, key=lambda client: cost[client])
            raise UserError(
                f"one evaluation of the sites' validation and test rows takes "
                f"{sum(cost.values()):,} {unit}, of these client {dearest} {cost[dearest]:,}",
                f"at most stop.{unit} = {left}",
                "raise it, start the run without that client, or set evaluation.mode=central",
            )


def check_agreement(reports: Sequence[SiteReport]) -> None:
    """Refuse two nodes of one index, and nodes that mean different things."""
    indices = [report.client for report in reports]
    if len(set(indices)) != len(indices):
        raise UserError(
            f"nodes with partition-id {indices}",
            "a different one for each node",
            "give each node its own --node-config partition-id",
        )
    for name in ("classes", "kind", "features", "encoder"):
        found = {str(getattr(report, name)) for report in reports}
        if len(found) > 1:
            raise UserError(
                f"clients disagree on {name}: {' and '.join(sorted(found))}",
                "the same on every node",
                "give all nodes the same data.labels, features and llm.model",
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


def check_server_encoder(settings: Settings, first: SiteReport) -> None:
    """Refuse a server that would embed its rows with another model than the clients.

    Raises
    ------
    UserError
        If it would.
    """
    from data import feature_kind
    from llm import resolve

    if settings.evaluation.mode != "central":
        return
    kind: Any = first.kind
    if feature_kind(kind, settings.features) != "embedding":
        return
    if resolve(settings.llm.model, kind).identity != first.encoder:
        raise UserError(
            f"the server's llm.model = {settings.llm.model!r} is not the clients' model",
            "the same base model for embedding features everywhere",
            "set llm.model for the whole run",
        )
