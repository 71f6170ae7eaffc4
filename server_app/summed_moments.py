"""The moments under secure aggregation: their sum, opened once a run, and no site's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError
from core.formatting import listed
from core.messages import Parameters, SiteReport, pack_instruction, payload_bytes
from core.received import read_masked
from core.secure_messages import MOMENTS, MOMENTS_ROUND, MomentsIns, moments_digest
from core.settings.secure import quorum, quorum_words
from core.summed import Vector
from core.summed_moments import (
    LARGEST_OF_EMBEDDINGS,
    LARGEST_WEIGHT,
    moment_length,
    moments_of_sum,
    prefixes,
    scale_of,
)
from strategies import FederationState, Member, rows_that_count
from strategies.decisions import Decision
from strategies.secure_exchange import MOST_BYTES, SecureExchange, opened, too_few, too_few_keys
from strategies.update_validation import Round

if TYPE_CHECKING:
    from core.secagg import Group, Masked


@dataclass(frozen=True)
class SummedMoments:
    """What the server knows of the sites' moments.

    Attributes
    ----------
    arrays : dict of arrays
        The sum, as a site in an open run sends its own.
    lost : dict
        Why a client's are not in it, by client.
    notes : tuple of str
        A line for each of these, and for each class of which rows are not in it.
    """

    arrays: Parameters
    lost: Mapping[int, str]
    notes: tuple[str, ...]


def sum_moments(
    grid: Grid,
    settings: Settings,
    members: Sequence[Member],
    exchange: SecureExchange,
    head: str,
) -> SummedMoments:
    """Let the sites send their moments masked, and open their sum.

    Each is scaled to the rows that its site counts for, as `fitting.merged_moments` does.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    settings : Settings
        The run's settings.
    members : sequence of Member
        The clients.
    exchange : SecureExchange
        Their keys, which the rounds go on with.
    head : str
        Head of the run's log.

    Raises
    ------
    UserError
        If the sum cannot be opened, or no rows have such moments.
    """
    summing = _Summing(grid, settings, FederationState.begin(members, settings), exchange)
    return summing.run(head)


def summed_kinds(settings: Settings, reports: Sequence[SiteReport]) -> dict[str, int]:
    """Return the candidate features that every site can send moments of, and how many each has.

    Those whose number only the features themselves say are not among them, but for the first.

    Raises
    ------
    UserError
        If a report does not say how many features there are.
    """
    from data import candidate_kinds, columns_of, unfit

    kind: Any = reports[0].kind
    first, *others = candidate_kinds(kind, settings)
    lengths = {about.length for about in reports}
    length = lengths.pop() if len(lengths) == 1 else 0
    rows = min(about.train_rows for about in reports)
    found = {first: _columns(reports[0])}
    for one in others:
        columns = columns_of(one, settings.features, length)
        if columns and not unfit(one, settings, length, rows):
            found[one] = columns
    return found


def _columns(about: SiteReport) -> int:
    """Return the number of the first candidate's features, which all reports agree on."""
    number = about.features.rpartition(", ")[2]
    if not number.isdecimal() or not 0 < int(number) <= 10**5:
        raise UserError(
            f"the sites report the features {about.features!r}",
            "their name and number",
            "give all nodes the same version of the app",
        )
    return int(number)


@dataclass
class _Summing:
    """One opening of the sum; its parts share the federation and what came."""

    grid: Grid
    settings: Settings
    state: FederationState
    exchange: SecureExchange
    masked: dict[int, Masked] = field(default_factory=dict)

    def run(self, head: str) -> SummedMoments:
        """Request keys, moments, and what takes their masks off."""
        members = self.state.members
        reports = [member.about for member in members.values()]
        kinds = summed_kinds(self.settings, reports)
        first = next(iter(kinds))
        widths = {"" if kind == first else f"{kind}.": d for kind, d in kinds.items()}
        classes = len(reports[0].classes)
        clients = [k for k, member in members.items() if member.about.train_rows]
        decision = Decision(participants=tuple(clients), steps={})
        now = Round(MOMENTS_ROUND, decision, wait=0.0, of=" (moments)")
        lacking = self.exchange.request_keys(self.grid, self.state, clients, MOMENTS_ROUND)
        there = [k for k in clients if k not in lacking]
        if len(there) < quorum(self.settings):
            accepted, instead = quorum_words(self.settings)
            fix = f"mend those clients and start the run again{instead}"
            raise UserError(too_few_keys(len(there), lacking), accepted, fix)
        scale = self._scale(list(kinds))
        groups = self._groups(there, list(kinds), scale)
        self._request(groups, list(kinds), now, moment_length(classes, widths), head)
        total = self._opened(groups, now)
        arrays = moments_of_sum(total / scale, classes, widths)
        lost = lacking | {k: _reason(now, k) for k in there if k not in self.masked}
        rows = self._rows(groups, scale)
        check_sum(arrays, rows, noise=self.settings.privacy.moment_noise)
        notes = self._notes(lost, arrays, rows)
        log(INFO, "moments: the sum of clients %s", listed(self.masked))
        for line in notes:
            log(WARNING, "%s", line)
        return SummedMoments(arrays, lost, notes)

    def _counted(self) -> dict[int, int]:
        return rows_that_count(self.state.members.values(), "train_rows", self.settings)

    def _scale(self, kinds: Sequence[str]) -> float:
        from data import embeds

        largest = LARGEST_OF_EMBEDDINGS if embeds(kinds) else LARGEST_WEIGHT
        return scale_of(self._counted().values(), largest)

    def _groups(self, clients: Sequence[int], kinds: Sequence[str], scale: float) -> list[Group]:
        """Return one group of all clients; of more than it may have, several alike."""
        from core.secagg.wire import MOST_MEMBERS

        weights = {client: scale * rows for client, rows in self._counted().items()}
        parts = np.array_split(np.array(clients), -(-len(clients) // MOST_MEMBERS))
        work = moments_digest(kinds)
        group = self.exchange.group
        return [group(MOMENTS_ROUND, part.tolist(), weights, work) for part in parts]

    def _request(
        self, groups: Sequence[Group], kinds: list[str], now: Round, length: int, head: str
    ) -> None:
        """Send MOMENTS to every member; take what comes back masked."""
        from core import secagg

        messages, sizes, group_of = [], {}, {}
        for group in groups:
            order = MomentsIns(self.exchange.run, kinds, group.to_bytes(), head)
            content = pack_instruction({}, order)
            for client in group.clients:
                node = self.state.members[client].node_id
                messages.append(Message(content, node, MOMENTS, group_id=str(MOMENTS_ROUND)))
                sizes[client], group_of[client] = payload_bytes(content), group
        timeout = self.settings.run.round_timeout
        replies = self.grid.send_and_receive(messages, timeout=timeout)
        for client, reply in now.answers(replies, self.state.client_of):
            with now.failing(client, "moments dropped: "):
                data = read_masked(reply, MOST_BYTES + 8 * length, alone=True)
                self.masked[client] = secagg.read_masked(data, group_of[client], client, length)
                up = payload_bytes(reply.content)
                self.exchange.spend(client, Cost(bytes_up=up, bytes_down=sizes[client]))
        now.expect(set(sizes) - set(self.masked), "no reply in time")

    def _opened(self, groups: Sequence[Group], now: Round) -> Vector:
        """Open the groups' sums and add them up; each must open."""
        for group in groups:
            if why := too_few(group, self.masked, "moments"):
                raise _unopened("; ".join((why, *now.failures)))
        answers = self.exchange.request_answers(self.grid, groups, self.masked, now, self.state)
        sums = []
        for group in groups:
            found = opened(group, self.masked, answers, now)
            if isinstance(found, str):
                raise _unopened("; ".join((found, *now.failures)))
            sums.append(np.asarray(found.vector, np.float64))
        return np.asarray(np.sum(sums, axis=0))

    def _rows(self, groups: Sequence[Group], scale: float) -> npt.NDArray[np.float64]:
        """Return the rows by class, (C,), that the sites in the sum report, as they count in it."""
        found = np.zeros(len(next(iter(self.state.members.values())).about.classes))
        for group in groups:
            for client in (k for k in group.clients if k in self.masked):
                about = self.state.members[client].about
                share = group.weight_of(client) / scale / about.train_rows
                found += share * np.array(about.class_rows)
        return found

    def _notes(
        self, lost: Mapping[int, str], arrays: Parameters, rows: npt.NDArray[np.float64]
    ) -> tuple[str, ...]:
        """Return a line for each client that is not in the sum, and for rows that are not."""
        lines = [
            f"client {k}: its moments are not in the projection: {why}"
            for k, why in sorted(lost.items())
        ]
        names = next(iter(self.state.members.values())).about.classes
        held = zip(names, arrays["count"], rows, strict=True)
        few = [f"{name} ({n - sent:.0f} of {n:.0f})" for name, sent, n in held if n - sent > 0.5]
        if few:
            lines.append(
                f"rows whose moments are not in the projection: {', '.join(few)}: a site with "
                "fewer than privacy.min_rows training rows of a class sends no moments of it"
            )
        return tuple(lines)


def check_sum(arrays: Parameters, rows: npt.NDArray[np.float64], *, noise: float) -> None:
    """Refuse a sum of moments that no rows have: whose part is wrong in it cannot be seen.

    Parameters
    ----------
    arrays : dict of arrays
        The sum.
    rows : array, shape (C,)
        Rows by class that the sites report.
    noise : float
        Noise multiplier of the moments; above 0 only the rows are looked at.

    Raises
    ------
    UserError
        If it is one.
    """
    from data import Moments, outlying_sites

    count, slack, why = arrays["count"], 1e-6 * (1 + rows), ""
    if (count > rows + slack).any() or (count < -slack).any():
        why = f"it is of {count.round(3).tolist()} rows by class instead of {rows.tolist()}"
    for prefix in prefixes(arrays) if not (noise or why) else ():
        parts = (arrays[f"{prefix}{name}"] for name in ("sums", "second"))
        why = why or outlying_sites([Moments(count, *parts)]).get(0, "")
    if why:
        raise UserError(
            f"the sum of the sites' moments cannot be used: {why}",
            "moments of the rows that the sites report",
            "find the site that sends others: start the run without each of them in turn",
        )


def _reason(now: Round, client: int) -> str:
    """Return why a client's moments did not come."""
    start = f"client {client}: "
    found = (one.removeprefix(start) for one in now.failures if one.startswith(start))
    return next(found, "no reply in time")


def _unopened(why: str) -> UserError:
    return UserError(
        f"the sum of the sites' moments cannot be opened: {why}",
        "the moments and answers of privacy.threshold of the clients, and of at least 3",
        "look at the logs of those that failed and start the run again; or leave them out of it",
    )
