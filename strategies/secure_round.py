"""Secure aggregation at the server: keys, groups, and their sums. It sees no single update.

`SecureRounds` lives as long as the run; what of a round it holds is the next one's to replace. A
group that cannot be opened is left out with its reason; the run goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError, derive_seed
from core.formatting import listed
from core.messages import UNSET, Parameters, TrainIns, TrainReport, pack_instruction, payload_bytes
from core.received import ReplyError, checked_reply, read_answer, read_masked
from core.secure_messages import KEYS, MOST_KEYS, UNMASK, KeysIns, UnmaskIns, work_digest
from core.settings.secure import LEAST, quorum, quorum_words, shortens
from core.summed import length, longer_than, mean_of
from strategies.aggregators import Contribution
from strategies.grouping import make_groups
from strategies.open_round import OpenRounds
from strategies.state import FederationState, add_costs
from strategies.update_validation import Round, Update, refuse
from strategies.updates import longest_norms, update_norm

if TYPE_CHECKING:
    from core.secagg import Answer, Group, KeyTable, Masked

MOST_BYTES = 1 << 24
"""Most of one message that is read: a thousand members with a million parameters."""


@dataclass(frozen=True)
class GroupUpdate:
    """What the server knows of a group: the weighted mean of its members' models.

    Attributes
    ----------
    clients : tuple of int
        Whose updates were summed, ascending.
    contribution : Contribution
        The mean, the sum of weights, and the members' figures averaged.
    steps : int
        Optimizer steps that its members were given, on average.
    """

    clients: tuple[int, ...]
    contribution: Contribution
    steps: int


@dataclass
class SecureRounds(OpenRounds):
    """The server's side of secure aggregation.

    Attributes
    ----------
    run : str
        Flower's id of the run, or `UNSET`.
    tables : dict
        Public keys by client.
    identities : dict
        Who signed a client's first table: others pin that too.
    costs : dict
        What messages beside training have cost in the round, by client.
    groups : tuple of Group
        Those of the round.
    masked : dict
        Masked updates of the round, by client.
    opened : list of GroupUpdate
        The sums that were opened in the round.
    lost : dict
        Why a group's sum was not used, by its members.
    """

    run: str = UNSET
    tables: dict[int, KeyTable] = field(default_factory=dict)
    identities: dict[int, bytes] = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    masked: dict[int, Masked] = field(default_factory=dict)
    opened: list[GroupUpdate] = field(default_factory=list)
    lost: dict[tuple[int, ...], str] = field(default_factory=dict)
    _grid: Grid | None = None

    # --- keys, once a run and when a site has lost them -------------------------------------

    def before(self, grid: Grid, state: FederationState, server_round: int) -> None:
        """Request the keys that are missing; who sends none takes no part in the round.

        Raises
        ------
        UserError
            If too few are left.
        """
        here = sorted(set(state.views) - state.absent)
        wanted = [k for k in here if k not in self.tables or server_round not in self.keys_of(k)]
        if not wanted:
            return
        last = min(server_round + MOST_KEYS - 1, self.settings.run.rounds)
        content = pack_instruction({}, KeysIns(self.run, server_round, last))
        messages = [Message(content, state.members[k].node_id, KEYS) for k in wanted]
        found = dict.fromkeys(wanted, "no reply in time")
        timeout = self.settings.run.round_timeout
        for reply in grid.send_and_receive(messages, timeout=timeout):
            client = state.client_of(reply.metadata.src_node_id)
            if client in found:
                found[client] = self._take_table(client, reply, range(server_round, last + 1))
                up = 0 if reply.has_error() else payload_bytes(reply.content)
                self._spend(client, Cost(bytes_up=up, bytes_down=payload_bytes(content)))
        lacking = {client: why for client, why in found.items() if why}
        for client, why in lacking.items():
            log(WARNING, "client %d sent no keys and sits the round out: %s", client, why)
        state.leave_out(lacking)
        if len(here) - len(lacking) < min(quorum(self.settings), len(state.views)):
            raise self._too_few_keys(len(here) - len(lacking), lacking)
        came = set(wanted) - set(lacking)
        log(INFO, "keys of secure aggregation: clients %s", listed(came))
        if trusting := [k for k in sorted(came) if not self.tables[k].knows_peers]:
            text = "clients %s know others by the keys that they see first in this run; without "
            text += "privacy.peers a server that lies from the start could be in the middle"
            log(WARNING, text, listed(trusting))

    def _too_few_keys(self, left: int, lacking: Mapping[int, str]) -> UserError:
        accepted, instead = quorum_words(self.settings)
        why = "; ".join(f"client {client}: {text}" for client, text in lacking.items())
        return UserError(
            f"{left} clients have keys of secure aggregation ({why})",
            accepted,
            f"mend those clients and go on with llm-qfl run --resume{instead}",
        )

    def keys_of(self, client: int) -> Mapping[int, object]:
        """Return a client's public keys by round."""
        return self.tables[client].keys

    def _take_table(self, client: int, reply: Message, rounds: range) -> str:
        """Take a client's table; return what is wrong with it, or nothing."""
        from core.secagg import KeyTable, check_table

        try:
            with checked_reply():
                refuse(str(reply.error.reason) if reply.has_error() else "")
                table = KeyTable.from_bytes(read_answer(reply, MOST_BYTES))
                check_table(table, self.run, client, rounds)
                same = self.identities.get(client, table.identity) == table.identity
                refuse("" if same else "its identity is not that of its earlier keys")
        except ReplyError as error:
            return str(error)
        self.tables[client], self.identities[client] = table, table.identity
        return ""

    def _spend(self, client: int, cost: Cost) -> None:
        self.costs = add_costs(self.costs, {client: cost})

    def take_costs(self) -> dict[int, Cost]:
        """Return what the round's own messages cost, and forget it."""
        costs, self.costs = self.costs, {}
        return costs

    # --- a round ------------------------------------------------------------------------------

    def plan(
        self,
        grid: Grid,
        now: Round,
        state: FederationState,
        reference: Parameters,
        instruction: TrainIns,
    ) -> dict[int, bytes]:
        """Put the participants into groups; return what each is told of its own."""
        from core.secagg import cap_weights, make_group, threshold_of

        self._grid, self.reference = grid, reference
        work = work_digest(reference, instruction)
        privacy, number = self.settings.privacy, now.number
        seed = derive_seed(self.settings.run.seed, "groups", number)
        past = [one.groups for one in state.group_rounds]
        chosen = now.decision.participants
        parts: tuple[tuple[int, ...], ...] = make_groups(
            chosen, privacy.group_size, np.random.default_rng(seed), past
        )
        weights = self._weights(state, chosen)
        self.masked, self.opened, self.lost, groups = {}, [], {}, []
        if len(chosen) < (least := max(LEAST, privacy.group_size)):
            for client in chosen:
                now.fail(client, f"{len(chosen)} clients are there, of at least {least} of a sum")
            parts = ()
        for clients in parts:
            threshold = threshold_of(len(clients), privacy.threshold)
            capped = cap_weights({k: weights[k] for k in clients}, threshold)
            tables = {k: self.tables[k] for k in clients}
            groups.append(make_group(self.run, number, threshold, tables, capped, work))
        self.groups = tuple(groups)
        return {k: data for g in groups for data in (g.to_bytes(),) for k in g.clients}

    def _weights(self, state: FederationState, clients: Sequence[int]) -> dict[int, float]:
        """Return what the clients weigh, 1 on average: by rows, or all alike."""
        from core import registry

        rule = self.settings.aggregation.rule
        if registry.declared("aggregation", rule, "equal_weights", False):
            return dict.fromkeys(clients, 1.0)
        mean = sum(state.weights[k] for k in clients) / len(clients)
        return {k: state.weights[k] / mean for k in clients}

    def take(self, client: int, reply: Message) -> Parameters:
        """Read a client's masked update; there are no parameters to be seen.

        Raises
        ------
        ValueError
            If it is not what the client's group asks for.
        """
        from core import secagg

        group = self.group_of(client)
        data = read_masked(reply, MOST_BYTES)
        self.masked[client] = secagg.read_masked(data, group, client, length(self.reference))
        return {}

    def group_of(self, client: int) -> Group:
        """Return the round's group that a client is in."""
        return next(group for group in self.groups if client in group.clients)

    def settle(self, now: Round, state: FederationState) -> None:
        """Request what takes the masks off, and open each group's sum.

        Members of a group that is not opened are left out with the reason. Who has lost its keys is
        requested new ones before the next round.
        """
        for client in now.keyless:
            self.tables.pop(client, None)
        ready = [group for group in self.groups if self._enough(group, now)]
        answers = self._request_answers(ready, now, state)
        found = [one for group in ready if (one := self._opened(group, answers, now))]
        self.opened = self._without_long(found, now)
        self._note(now, [1.0] * len(self.opened))

    def parts(self, counted: Sequence[Update], state: FederationState) -> list[Contribution]:
        """Return the means of the groups."""
        return [one.contribution for one in self.opened]

    def note(self, now: Round, counted: Sequence[Update], shares: Sequence[float]) -> None:
        """Note whose sums were aggregated."""
        now.count(counted, [1.0] * len(counted))
        self._note(now, shares)

    def _note(self, now: Round, shares: Sequence[float]) -> None:
        now.note_sums(self._facts(shares), {one.clients: one.contribution for one in self.opened})

    def _enough(self, group: Group, now: Round) -> bool:
        """Whether enough masked updates came; a group of fewer is lost before it is asked."""
        there = [k for k in group.clients if k in self.masked]
        if len(there) >= group.threshold:
            return True
        came = f"{len(there)} of {len(group.clients)} masked updates came"
        self._lose(group.clients, now, f"{came}, of at least {group.threshold}")
        return False

    def _request_answers(
        self, groups: Sequence[Group], now: Round, state: FederationState
    ) -> dict[int, Answer]:
        """Send UNMASK to every member whose masked update came; return the answers."""
        from core import secagg

        messages, sizes, survivors = [], {}, {}
        for group in groups:
            there = {k: self.masked[k] for k in group.clients if k in self.masked}
            for client in there:
                shares = secagg.ciphertexts_for(client, group, there)
                order = UnmaskIns(self.run, now.number, [*there], [*shares], [*shares.values()])
                content = pack_instruction({}, order)
                survivors[client], sizes[client] = list(there), payload_bytes(content)
                node = state.members[client].node_id
                messages.append(Message(content, node, UNMASK, group_id=str(now.number)))
        answers: dict[int, Answer] = {}
        assert self._grid is not None  # a round begins with its plan
        replies = self._grid.send_and_receive(messages, timeout=self.settings.run.round_timeout)
        for client, reply in now.answers(replies, state.client_of):
            with now.failing(client, "answer to unmask dropped: "):
                data, group = read_answer(reply, MOST_BYTES), self.group_of(client)
                answers[client] = secagg.read_answer(data, group, client, survivors[client])
                up = payload_bytes(reply.content)
                self._spend(client, Cost(bytes_up=up, bytes_down=sizes[client]))
        now.expect(set(sizes) - set(answers), "no answer to unmask in time")
        return answers

    def _opened(
        self, group: Group, answers: Mapping[int, Answer], now: Round
    ) -> GroupUpdate | None:
        """Open a group's sum; None if that cannot be done."""
        from core.secagg import SecAggError, unmask

        masked = {k: self.masked[k] for k in group.clients if k in self.masked}
        given = {k: answers[k] for k in masked if k in answers}
        try:
            found = unmask(group, masked, given)
            total = np.asarray(found.vector, np.float64)
            self._check_sum(total, sum(group.weight_of(client) for client in found.members))
        except SecAggError as error:
            for client in error.clients:
                now.fail(client, error.reason)
            self._lose(group.clients, now, error.reason)
            return None
        except ReplyError as error:
            self._lose(group.clients, now, str(error))
            return None
        for client in found.liars:
            now.fail(client, "its shares of others' masks are wrong, or were dealt wrong")
        reports = [now.updates[k].report for k in found.members]
        contribution = Contribution(
            mean_of(total, self.reference), float(total[-1]), averaged(reports)
        )
        steps = [now.decision.steps[k] for k in found.members]
        return GroupUpdate(tuple(found.members), contribution, round(np.mean(steps)))

    def _check_sum(self, total: npt.NDArray[np.float64], weight: float) -> None:
        """Refuse a sum that no honest members have: they shorten their own updates."""
        bound = self.settings.aggregation.max_norm
        least = 0.0 if self.settings.aggregation.weighting == "noise" else weight * (1 - 1e-6)
        fits = 0 < total[-1] <= weight * (1 + 1e-6) and total[-1] >= least
        refuse("" if fits else f"its weights add up to {total[-1]:.6g} instead of {weight:.6g}")
        if shortens(self.settings) and (more := longer_than(total, bound)):
            refuse(f"its sum is {more:.1%} longer than updates of norm {bound:g} can make it")

    def _lose(self, clients: tuple[int, ...], now: Round, why: str) -> None:
        """Leave a group out of the round."""
        self.lost[clients] = why
        text = f"group {listed(clients)}: {why}"
        now.failures.append(text)
        log(WARNING, "%s, %s", now.title, text)
        for client in clients:
            now.leave_out(client, f"its {text}")

    def _without_long(self, found: list[GroupUpdate], now: Round) -> list[GroupUpdate]:
        """Leave out groups whose means are much longer than most; of two neither is."""
        if not shortens(self.settings):
            return found
        ratio = self.settings.aggregation.norm_ratio
        norms = [update_norm(one.contribution.arrays, self.reference) for one in found]
        bounds = longest_norms(norms, [one.steps for one in found], ratio)
        for one, norm, bound in zip(found, norms, bounds, strict=True):
            if norm > bound:
                why = (
                    f"norm {norm:.3g} of its mean is above {bound:.3g}, {ratio:g} times the median"
                )
                self._lose(one.clients, now, why)
        return [one for one, *pair in zip(found, norms, bounds, strict=True) if pair[0] <= pair[1]]

    def _facts(self, shares: Sequence[float]) -> list[dict[str, Any]]:
        """Return the round's groups, for its event: who was summed, and why another was not."""
        summed = {one.clients: share for one, share in zip(self.opened, shares, strict=True)}
        found = []
        for group in self.groups:
            inside = next((c for c in summed if set(c) <= set(group.clients)), ())
            why = next((w for c, w in self.lost.items() if set(c) <= set(group.clients)), "")
            one = {"clients": group.clients, "threshold": group.threshold, "summed": inside}
            found.append({**one, "clipped": summed.get(inside), "lost": why})
        return found


def averaged(reports: Sequence[TrainReport]) -> TrainReport:
    """Return one report of a group: rows are added, losses and accuracy averaged by rows."""
    rows = sum(report.rows for report in reports)
    means = {
        name: sum(getattr(r, name) * r.rows for r in reports) / max(1, rows)
        for name in ("loss", "accuracy", "train_loss")
    }
    steps = round(sum(report.steps for report in reports) / len(reports))
    return TrainReport(**{**asdict(reports[0]), **means, "rows": rows, "steps": steps})


def rounds_of(settings: Settings, run: str, depths: Collection[int] = ()) -> OpenRounds:
    """Return how updates reach the server, by the settings."""
    if settings.privacy.secure_aggregation:
        return SecureRounds(settings, run=run or UNSET)
    return OpenRounds(settings, depths=depths)
