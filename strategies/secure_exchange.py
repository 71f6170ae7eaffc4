"""The server's messages of secure aggregation beside training: keys, and what opens a sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import TYPE_CHECKING

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings
from core.formatting import listed
from core.messages import UNSET, pack_instruction, payload_bytes
from core.received import ReplyError, checked_reply, read_answer
from core.secure_messages import KEYS, MOST_KEYS, UNMASK, KeysIns, UnmaskIns
from strategies.state import FederationState, add_costs
from strategies.update_validation import Round, refuse

if TYPE_CHECKING:
    from core.secagg import Answer, Group, GroupSum, KeyTable, Masked

MOST_BYTES = 1 << 24
"""Most of one message that is read: a thousand members with a million parameters."""


@dataclass
class SecureExchange:
    """The keys of a run's clients, and the messages by which a group's sum is opened.

    Attributes
    ----------
    settings : Settings
        The run's settings.
    run : str
        Flower's id of the run, or `UNSET`.
    tables : dict
        Public keys by client.
    identities : dict
        Who signed a client's first table: others pin that too.
    costs : dict
        What these messages have cost since `take_costs`, by client.
    """

    settings: Settings
    run: str = UNSET
    tables: dict[int, KeyTable] = field(default_factory=dict)
    identities: dict[int, bytes] = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)

    # --- keys, once a run and when a site has lost them -------------------------------------

    def request_keys(
        self, grid: Grid, state: FederationState, clients: Iterable[int], number: int
    ) -> dict[int, str]:
        """Request the keys that are missing for a round; return why clients sent none."""
        tables = self.tables
        wanted = [k for k in sorted(clients) if k not in tables or number not in tables[k].keys]
        if not wanted:
            return {}
        last = min(number + MOST_KEYS - 1, self.settings.run.rounds)
        content = pack_instruction({}, KeysIns(self.run, number, last))
        messages = [Message(content, state.members[k].node_id, KEYS) for k in wanted]
        found = dict.fromkeys(wanted, "no reply in time")
        timeout = self.settings.run.round_timeout
        for reply in grid.send_and_receive(messages, timeout=timeout):
            client = state.client_of(reply.metadata.src_node_id)
            if client in found:
                found[client] = self._take_table(client, reply, range(number, last + 1))
                up = 0 if reply.has_error() else payload_bytes(reply.content)
                self.spend(client, Cost(bytes_up=up, bytes_down=payload_bytes(content)))
        lacking = {client: why for client, why in found.items() if why}
        for client, why in lacking.items():
            log(WARNING, "client %d sent no keys and sits the round out: %s", client, why)
        self._tell_of(set(wanted) - set(lacking))
        return lacking

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

    def _tell_of(self, clients: Iterable[int]) -> None:
        """Log whose keys came, and which of them know no identities beforehand."""
        came = sorted(clients)
        log(INFO, "keys of secure aggregation: clients %s", listed(came))
        if trusting := [k for k in came if not self.tables[k].knows_peers]:
            text = "clients %s know others by the keys that they see first in this run; without "
            text += "privacy.peers a server that lies from the start could be in the middle"
            log(WARNING, text, listed(trusting))

    def forget_keys(self, clients: Iterable[int]) -> None:
        """Request new keys of clients that have lost theirs, before the next round."""
        for client in clients:
            self.tables.pop(client, None)

    # --- costs --------------------------------------------------------------------------------

    def spend(self, client: int, cost: Cost) -> None:
        """Add what a client's message has cost."""
        self.costs = add_costs(self.costs, {client: cost})

    def take_costs(self) -> dict[int, Cost]:
        """Return what the messages have cost, and forget it."""
        costs, self.costs = self.costs, {}
        return costs

    # --- a sum --------------------------------------------------------------------------------

    def group(
        self, number: int, clients: Sequence[int], weights: Mapping[int, float], work: bytes
    ) -> Group:
        """Describe a group of clients that have keys for a round; weights are capped."""
        from core.secagg import cap_weights, make_group, threshold_of

        threshold = threshold_of(len(clients), self.settings.privacy.threshold)
        capped = cap_weights({k: weights[k] for k in clients}, threshold)
        tables = {k: self.tables[k] for k in clients}
        return make_group(self.run, number, threshold, tables, capped, work)

    def request_answers(
        self,
        grid: Grid,
        groups: Sequence[Group],
        masked: Mapping[int, Masked],
        now: Round,
        state: FederationState,
    ) -> dict[int, Answer]:
        """Send UNMASK to every member whose masked vector came; return the answers."""
        from core import secagg

        messages, sizes, survivors, group_of = [], {}, {}, {}
        for group in groups:
            there = {k: masked[k] for k in group.clients if k in masked}
            for client in there:
                shares = secagg.ciphertexts_for(client, group, there)
                order = UnmaskIns(self.run, now.number, [*there], [*shares], [*shares.values()])
                content = pack_instruction({}, order)
                group_of[client], survivors[client] = group, list(there)
                sizes[client] = payload_bytes(content)
                node = state.members[client].node_id
                messages.append(Message(content, node, UNMASK, group_id=str(now.number)))
        answers: dict[int, Answer] = {}
        replies = grid.send_and_receive(messages, timeout=self.settings.run.round_timeout)
        for client, reply in now.answers(replies, state.client_of):
            with now.failing(client, "answer to unmask dropped: "):
                data, group = read_answer(reply, MOST_BYTES), group_of[client]
                answers[client] = secagg.read_answer(data, group, client, survivors[client])
                up = payload_bytes(reply.content)
                self.spend(client, Cost(bytes_up=up, bytes_down=sizes[client]))
        now.expect(set(sizes) - set(answers), "no answer to unmask in time")
        return answers


def too_few(group: Group, masked: Mapping[int, Masked], what: str) -> str:
    """Say that too few masked vectors came for a group to be opened; empty: enough did."""
    there = sum(k in masked for k in group.clients)
    if there >= group.threshold:
        return ""
    return f"{there} of {len(group.clients)} masked {what} came, of at least {group.threshold}"


def too_few_keys(left: int, lacking: Mapping[int, str]) -> str:
    """Say that only so many clients have keys, and why others sent none."""
    why = "; ".join(f"client {client}: {text}" for client, text in sorted(lacking.items()))
    return f"{left} clients have keys of secure aggregation ({why})"


def opened(
    group: Group, masked: Mapping[int, Masked], answers: Mapping[int, Answer], now: Round
) -> GroupSum | str:
    """Open a group's sum, and fail who broke the protocol; or say why it cannot be opened."""
    from core.secagg import SecAggError, unmask

    inside = {k: masked[k] for k in group.clients if k in masked}
    try:
        found = unmask(group, inside, {k: answers[k] for k in inside if k in answers})
    except SecAggError as error:
        for client in error.clients:
            now.fail(client, error.reason)
        return error.reason
    for client in found.liars:
        now.fail(client, "its shares of others' masks are wrong, or were dealt wrong")
    return found
