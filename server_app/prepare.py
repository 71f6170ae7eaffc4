"""Round 0: wait for the nodes, read their reports, and fit the one projection."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, DataError, Settings, UserError, most_steps
from core.formatting import printable
from core.messages import ARRAYS, PREPARE, UNSET, Parameters, SiteReport, payload_bytes
from core.received import ReplyError, checked_reply, read_report_alone, read_site_report
from server_app.feature_choice import check_moments, choose_features
from server_app.fitting import fit_on_moments
from server_app.noise import check_noise
from server_app.summed_moments import SummedMoments, sum_moments
from strategies import Member, add_costs, last_line, rows_that_count, train_shared_adapter
from strategies.context import PreparedFederation
from strategies.journal import RunJournal
from strategies.row_weights import counted_classes, dominance
from strategies.secure_exchange import SecureExchange
from strategies.update_validation import refuse

MOST_SHOTS = 10**8
"""Shots of a circuit; `hardware.precision` may need many."""

CLEAR = "it has moments in the clear: that node sets privacy.secure_aggregation = false"

ReadReport = Callable[[Message], tuple[SiteReport, Parameters]]


def wait_for_nodes(grid: Grid, settings: Settings) -> list[int]:
    """Wait until the run's clients have all appeared; return their node ids, sorted.

    Raises
    ------
    UserError
        If too few appear within ``run.wait_seconds``, or more than the run has clients.
    """
    wanted = settings.run.clients
    deadline = time.monotonic() + settings.run.wait_seconds
    while len(nodes := sorted(grid.get_node_ids())) < wanted and time.monotonic() <= deadline:
        time.sleep(0.2)
    if len(nodes) != wanted:
        raise UserError(
            f"{len(nodes)} nodes are connected",
            f"run.clients = {wanted}",
            f"start the federation with num-supernodes={wanted}, or set run.clients={len(nodes)}",
        )
    return nodes


def prepare(
    grid: Grid, settings: Settings, journal: RunJournal, run_id: str = ""
) -> PreparedFederation:
    """Request every node's report and moments, and fit the projection on their sum.

    With `llm.federated` the clients train their adapter in between. Under secure aggregation the
    moments come masked, after the reports, and their sum alone is opened.

    Raises
    ------
    UserError
        With each node's own sentence, if a node cannot take part.
    """
    nodes = wait_for_nodes(grid, settings)
    log(INFO, "preparing %d clients", len(nodes))
    messages = [Message(RecordDict(), node, PREPARE) for node in nodes]
    answers = read_reports(  # nothing else holds the replies: thousands of moments are gigabytes
        list(grid.send_and_receive(messages, timeout=settings.run.round_timeout)),
        settings,
        lambda reply: read_prepared(reply, settings),
        "start",
    )
    members = tuple(member for member, _, _ in answers)
    sums = [moments for _, moments, _ in answers]
    costs = {member.client: Cost(bytes_up=size) for member, _, size in answers}
    count = rows_by_class(members, settings)
    # Before anything is paid for.
    check_budgets(members, settings)
    check_noise(members, settings)
    if sum(rows > 0 for rows in count) < 2:
        raise DataError(
            f"training rows by class {count} over all clients",
            "rows of at least two classes",
            "check the label column or data.labels",
        )
    check_server_encoder(settings, members[0].about)
    summed, exchange = _summed(grid, settings, members, journal, run_id)
    sums = [summed.arrays] if summed else sums
    weights = class_weights(count, settings.train.class_weights)
    shared, adapter = settings.features.encoder == "shared", None
    if shared:  # then it makes the features
        adapter = train_shared_adapter(grid, settings, members, journal)
        sums = [adapter.moments[member.client] for member in members]
    choice = choose_features(grid, settings, members, sums, weights, adapter)
    if settings.llm.federated != "none" and not shared:
        adapter = train_shared_adapter(grid, settings, members, journal)
    costs = add_costs(costs, choice.costs)
    costs = add_costs(costs, exchange.take_costs()) if exchange else costs
    costs = add_costs(costs, adapter.costs) if adapter else costs
    reports = [member.about for member in members]
    projection, left_out, notes = fit_on_moments(
        settings, reports, choice.sums, choice.kinds, choice.shrinkage, choice.qubits
    )
    if summed:
        left_out, notes = tuple(sorted(summed.lost)), summed.notes
    return PreparedFederation(
        *(members, costs, projection.to_bytes(), weights, adapter, left_out, notes),
        choice=choice.why,
        exchange=exchange,
    )


def _summed(
    grid: Grid, settings: Settings, members: Sequence[Member], journal: RunJournal, run_id: str
) -> tuple[SummedMoments | None, SecureExchange | None]:
    """Under secure aggregation, open the sum of the sites' moments; it begins with their keys."""
    if not settings.privacy.secure_aggregation:
        return None, None
    exchange = SecureExchange(settings, run=run_id or UNSET)
    return sum_moments(grid, settings, members, exchange, journal.chain.head), exchange


def with_step_costs(
    federation: PreparedFederation, settings: Settings, given: Settings
) -> PreparedFederation:
    """Price the clients' steps by the run's circuit: each priced one of most qubits.

    Parameters
    ----------
    federation : PreparedFederation
        Of a run whose number of qubits the sites did not know.
    settings, given : Settings
        The run's, with that number, and those that the sites were given.
    """
    from quantum import build_ansatz, circuits_per_step

    classes = len(federation.first.classes)
    shifts, most = (build_ansatz(one.quantum, classes).shifts for one in (settings, given))

    def priced(member: Member) -> Member:
        about, backend = member.about, member.about.backend.partition(" ")[0]
        # A step's rows are the site's to say: those without labels are in no number of rows.
        rows = about.circuits_per_step // circuits_per_step(settings.train, 1, most, backend)
        circuits = circuits_per_step(settings.train, rows, shifts, backend)
        return replace(member, about=replace(about, circuits_per_step=circuits))

    return replace(federation, members=tuple(map(priced, federation.members)))


def read_prepared(reply: Message, settings: Settings) -> tuple[SiteReport, Parameters]:
    """Read a site's answer to PREPARE; its moments must be of the run's features.

    Under secure aggregation there are none in it: they must not come in the clear.
    """
    if settings.privacy.secure_aggregation:
        refuse("" if ARRAYS not in reply.content else CLEAR)
        return read_report_alone(reply), {}
    about, arrays = read_site_report(reply)
    check_moments(about, arrays, settings)
    return about, arrays


def rows_by_class(members: Sequence[Member], settings: Settings) -> list[float]:
    """Return the training rows of each class that count over all clients, length C."""
    rows = {member.client: member.about.class_rows for member in members}
    return counted_classes(rows, rows_that_count(members, "train_rows", settings))


def dominant_sites(members: Sequence[Member], settings: Settings) -> Iterator[str]:
    """Yield a line for each client that dominates by the rows that it declares."""
    names = {"train_rows": "training", "val_rows": "validation", "test_rows": "test"}
    if settings.evaluation.mode == "central":  # then only training rows weigh
        names = {"train_rows": "training"}
    for name, what in names.items():
        rows = {member.client: int(getattr(member.about, name)) for member in members}
        yield from dominance(rows, rows_that_count(members, name, settings), what)


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


def read_reports(
    replies: Sequence[Message], settings: Settings, read: ReadReport, what: str
) -> list[tuple[Member, Parameters, int]]:
    """Read the sites' reports, ordered by client; every node must take part.

    Parameters
    ----------
    replies : sequence of Message
        What arrived.
    settings : Settings
        The run's settings.
    read : callable
        Reads one reply: a site's report, and the arrays that came with it.
    what : str
        What a client does that takes part, for the error.

    Returns
    -------
    list of tuple
        Each client, its arrays, and the bytes of its reply.

    Raises
    ------
    UserError
        If a node failed, did not answer, or sent what cannot be true.
    """
    nodes = settings.run.clients
    if problems := [r.error.reason or "no reason given" for r in replies if r.has_error()]:
        short = " | ".join(dict.fromkeys(printable(last_line(problem)) for problem in problems))
        raise UserError(f"{len(problems)} of {nodes} clients cannot {what}: {short}")
    if len(replies) < nodes:
        raise UserError(
            f"{len(replies)} of {nodes} clients answered in time",
            "all of them",
            "look at the clients' logs or raise run.round_timeout",
        )
    answers, shifts = [], _shifts_by_classes(settings)
    for reply in replies:
        node = reply.metadata.src_node_id
        try:
            with checked_reply():
                about, arrays = read(reply)
                check_site(about, settings, shifts)
                answers.append((Member(node, about), arrays, payload_bytes(reply.content)))
        except ReplyError as error:
            raise UserError(
                f"node {node} sent a report that cannot be used: {error}",
                "what the app's own preparation sends",
                "give all nodes the same version of the app, or start the run without that node",
            ) from None
    answers.sort(key=lambda answer: answer[0].client)
    check_agreement([member.about for member, _, _ in answers])
    return answers


def _shifts_by_classes(settings: Settings) -> Callable[[int], int]:
    """Return a function from the number of classes to the run's circuit's trained gates."""
    from quantum import build_ansatz

    return functools.cache(lambda classes: build_ansatz(settings.quantum, classes).shifts)


def check_site(about: SiteReport, settings: Settings, shifts: Callable[[int], int]) -> None:
    """Check a site's report against itself and against the run.

    Parameters
    ----------
    about, settings : SiteReport and Settings
        The report, and the run's settings.
    shifts : callable
        From classes to gates of the run's circuit whose angles are trained.

    Raises
    ------
    ValueError
        If rows do not add up, the index is none of the run's, or a step is said to cost more
        than the dearest optimiser takes for so many rows. Weights, budgets and prices are
        computed from these numbers.
    """
    from quantum import circuits_per_step

    who = f"client {about.client}"
    if about.client >= settings.run.clients:
        raise ValueError(f"{who} of {settings.run.clients}")
    if len(about.class_rows) != len(about.classes) or sum(about.class_rows) != about.train_rows:
        raise ValueError(
            f"{who} reports {about.train_rows} training rows and of its "
            f"{len(about.classes)} classes {about.class_rows}"
        )
    if len(set(about.classes)) < max(2, len(about.classes)):
        raise ValueError(f"{who} reports the classes {about.classes}")
    dearest = settings.train.model_copy(update={"optimizer": "adam"})
    for name, most in (
        (
            "circuits_per_step",
            circuits_per_step(dearest, about.train_rows, shifts(len(about.classes))),
        ),
        ("circuits_fixed", 2 * about.val_rows + about.train_rows),
        ("shots_per_circuit", MOST_SHOTS),
    ):
        if getattr(about, name) > most:
            raise ValueError(f"{who} reports {name} = {getattr(about, name)}, of at most {most}")


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
    from data import check_lengths

    indices = [report.client for report in reports]
    if len(set(indices)) != len(indices):
        raise UserError(
            f"nodes with partition-id {indices}",
            "a different one for each node",
            "give each node its own --node-config partition-id",
        )
    lengths = {f"client {report.client}": report.length for report in reports}
    if len({report.features for report in reports}) > 1 and len(set(lengths.values())) > 1:
        check_lengths(reports[0].features.partition(", ")[0], lengths)
    for name in ("classes", "kind", "features", "encoder"):
        found = {str(getattr(report, name)) for report in reports}
        if len(found) > 1:
            raise UserError(
                f"clients disagree on {name}: {' and '.join(sorted(found))}",
                "the same on every node",
                "give all nodes the same data.labels, features and llm.model",
            )


def warn_of_step_limit(settings: Settings, members: Sequence[Member]) -> None:
    """Warn that the agent's steps are bounded where a client's device costs money."""
    most = most_steps(settings, [member.about.backend for member in members])
    wanted = settings.train.max_steps
    if most < wanted:
        text = "a device costs money and no budget is set: at most %d steps a round, not %d"
        log(WARNING, text, most, wanted)


def check_server_encoder(settings: Settings, first: SiteReport) -> None:
    """Refuse a server that would embed its rows with another model than the clients.

    Raises
    ------
    UserError
        If it would.
    """
    from data import candidate_kinds, embeds
    from llm import common_identity

    kind: Any = first.kind
    if settings.evaluation.mode != "central" or not embeds(candidate_kinds(kind, settings)):
        return
    if common_identity(settings, kind, embeds=True) != first.encoder:
        own = settings.llm.encoder != "auto"
        setting, name = (
            ("llm.encoder", settings.llm.encoder) if own else ("llm.model", settings.llm.model)
        )
        raise UserError(
            f"the server's {setting} = {name!r} is not the clients' model",
            "the same base model for embedding features everywhere",
            f"set {setting} for the whole run",
        )
