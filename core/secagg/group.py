"""A group: the members of one sum, as the server describes it and every member checks it."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from core.secagg import graph
from core.secagg.errors import SecAggError
from core.secagg.identity import IDENTITY_BYTES
from core.secagg.keys import KeyTable, RoundPrivate, SignedKeys
from core.secagg.wire import MOST_MEMBERS, Reader, number_bytes

FEWEST = 3
"""Fewest members of a sum: in one of two, each would see the other's update."""

MOST_TIMES = 10.0
"""Most that a member weighs, as a multiple of what enough others weigh (`cap_weights`)."""

WORK_BYTES = 32
_MOST_CLIENT = 10**6


@dataclass(frozen=True)
class Member:
    """One member of a group.

    Attributes
    ----------
    client : int
        Its index.
    identity : bytes
        Whose signature is under its keys.
    keys : SignedKeys
        Of the round.
    weight : float
        What its update is multiplied with before masking; above 0.
    """

    client: int
    identity: bytes
    keys: SignedKeys
    weight: float


@dataclass(frozen=True)
class Group:
    """The members of one sum in one round.

    Attributes
    ----------
    run : str
        The run's id.
    round : int
        From 1.
    threshold : int
        Members that must answer for the sum to be opened.
    members : tuple of Member
        In ascending order of their clients.
    work : bytes
        Digest of the model and of whatever else all members train with, 32 bytes. A server that
        sent others a model without gradients would read one update off the sum (Pasquini et al.,
        *Eluding Secure Aggregation in Federated Learning via Model Inconsistency*, CCS 2022).
    """

    run: str
    round: int
    threshold: int
    members: tuple[Member, ...]
    work: bytes = bytes(WORK_BYTES)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over all of it: what masks and shares are bound to."""
        return hashlib.sha256(b"llm-qfl secagg group" + self.to_bytes()).digest()

    @cached_property
    def clients(self) -> tuple[int, ...]:
        """The members' indices, ascending."""
        return tuple(member.client for member in self.members)

    @cached_property
    def graph(self) -> dict[int, tuple[int, ...]]:
        """Every member's neighbours."""
        return graph.neighbours(self.digest, self.clients, self.threshold)

    @property
    def shares_needed(self) -> int:
        """Shares that restore a seed."""
        return graph.shares_needed(len(self.members), self.threshold)

    def neighbours(self, client: int) -> tuple[int, ...]:
        """Return the members with which one masks and shares, ascending."""
        return self.graph[client]

    def member(self, client: int) -> Member:
        """Return a member.

        Raises
        ------
        SecAggError
            If there is none of that index.
        """
        for member in self.members:
            if member.client == client:
                return member
        raise SecAggError(f"client {client} is not in the group")

    def weight_of(self, client: int) -> float:
        """Return what a member's update is multiplied with."""
        return self.member(client).weight

    def to_bytes(self) -> bytes:
        """Write 217 bytes for each member, and the rest."""
        name = self.run.encode()
        head = number_bytes(len(name)) + name + number_bytes(self.round)
        head += number_bytes(self.threshold) + self.work + number_bytes(len(self.members))
        parts = (
            number_bytes(m.client) + m.identity + m.keys.to_bytes() + struct.pack(">d", m.weight)
            for m in self.members
        )
        return head + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Group:
        """Read what a server sent.

        Raises
        ------
        SecAggError
            If it is no group.
        """
        reader = Reader(data, "a group")
        try:
            run = reader.take(reader.number(100)).decode()
        except UnicodeDecodeError:
            raise SecAggError("a group's run is no text") from None
        number, threshold = reader.number(2**31), reader.number(MOST_MEMBERS)
        work, members = reader.take(WORK_BYTES), []
        for _ in range(reader.number(MOST_MEMBERS)):
            client, identity = reader.number(_MOST_CLIENT), reader.take(IDENTITY_BYTES)
            keys = SignedKeys.read(reader)
            members.append(Member(client, identity, keys, struct.unpack(">d", reader.take(8))[0]))
        reader.end()
        return cls(run, number, threshold, tuple(members), work)


def threshold_of(members: int, share: float) -> int:
    """Return how many of some members must answer, from their share; at least 3."""
    return max(FEWEST, math.ceil(share * members - 1e-9))


def make_group(
    run: str,
    number: int,
    threshold: int,
    tables: Mapping[int, KeyTable],
    weights: Mapping[int, float],
    work: bytes = bytes(WORK_BYTES),
) -> Group:
    """Describe a group of clients for one round.

    Parameters
    ----------
    run : str
        The run's id.
    number : int
        The round.
    threshold : int
        Members that must answer.
    tables : mapping
        The members' tables of keys.
    weights : mapping
        Of the same clients; `cap_weights` bounds them as the sites require.
    work : bytes
        Digest of what all of them are to train.

    Raises
    ------
    SecAggError
        If no site would accept the group, or a member has no keys for the round.
    """
    for client in sorted(tables):
        if number not in tables[client].keys:
            raise SecAggError(f"client {client} sent no keys for round {number}", (client,))
    members = tuple(
        Member(c, tables[c].identity, tables[c].keys[number], float(weights[c]))
        for c in sorted(tables)
    )
    group = Group(run, number, threshold, members, work)
    _check_shape(group)
    return group


def cap_weights(weights: Mapping[int, float], threshold: int) -> dict[int, float]:
    """Lower weights that stand out so far that a sum would be one member's update.

    However many members are lost, two others of at least a tenth of a member's weight stay.

    Parameters
    ----------
    weights : mapping
        Weight by client, above 0; at least as many as the threshold.
    threshold : int
        Members that must answer.
    """
    cap = _most_weight(list(weights.values()), threshold)
    return {client: min(weight, cap) for client, weight in weights.items()}


def check_group(
    group: Group,
    private: RoundPrivate,
    client: int,
    *,
    run: str,
    round: int,
    peers: Mapping[int, bytes] | None,
    pinned: Mapping[int, bytes] = {},
    work: bytes = bytes(WORK_BYTES),
) -> dict[int, bytes]:
    """Check, as a member, all that a server says of a group.

    Parameters
    ----------
    group : Group
        As the server sent it.
    private : RoundPrivate
        The member's own keys for the round.
    client : int
        The member.
    run, round
        What is being trained.
    peers : mapping or None
        Known identities of all sites; None: each is pinned when it is first seen.
    pinned : mapping
        Identities that were seen before in this run.
    work : bytes
        Digest of what this member was sent to train.

    Returns
    -------
    dict
        Identities that are pinned from now on; empty where they are known.

    Raises
    ------
    SecAggError
        With the first thing that is wrong.
    """
    if (group.run, group.round) != (run, round):
        raise SecAggError(
            f"the group is of run {group.run!r}, round {group.round}; this is run {run!r}, "
            f"round {round}"
        )
    if group.work != work:
        raise SecAggError(
            "the other members of the group are to train another model, or otherwise: one update "
            "could be read off such a sum"
        )
    _check_shape(group)
    own = group.member(client).keys
    if (own.mask, own.share) != private.public:
        raise SecAggError("the group holds other keys of this site than it has: they are stale")
    for member in group.members:
        _check_identity(member, peers, pinned)
        _check_signature(member, group)
    return {**pinned, **{m.client: m.identity for m in group.members}} if peers is None else {}


def _check_shape(group: Group) -> None:
    clients, count = group.clients, len(group.members)
    if count < FEWEST:
        raise SecAggError(f"the group has {count} members; at least {FEWEST} are needed")
    if count > MOST_MEMBERS:
        raise SecAggError(f"the group has {count} members; at most {MOST_MEMBERS} are accepted")
    if any(one >= other for one, other in pairwise(clients)):
        raise SecAggError("the group's members are not in ascending order, each once")
    if len({member.identity for member in group.members}) != count:
        raise SecAggError("two members of the group have the same identity")
    if not (group.threshold >= FEWEST and count / 2 < group.threshold <= count):
        raise SecAggError(
            f"the group's threshold is {group.threshold} of {count} members; accepted: at least "
            f"{FEWEST}, and more than half"
        )
    _check_weights([member.weight for member in group.members], group.threshold)


def _check_weights(weights: Sequence[float], threshold: int) -> None:
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise SecAggError("a member of the group weighs nothing, or no number")
    most = _most_weight(weights, threshold)
    if max(weights) > most * (1 + 1e-9):
        raise SecAggError(
            f"a member of the group weighs {max(weights):.4g}, more than {MOST_TIMES:g} times what "
            "two others may: the sum would be its update"
        )


def _most_weight(weights: Sequence[float], threshold: int) -> float:
    """Return the most that a member may weigh; `len(weights) - threshold` others may be lost."""
    place = len(weights) - threshold + 2
    return MOST_TIMES * sorted(weights, reverse=True)[place]


def _check_signature(member: Member, group: Group) -> None:
    if not member.keys.signed_by(member.identity, group.run, member.client, group.round):
        why = f"the keys of client {member.client} are not signed by its identity"
        raise SecAggError(why, (member.client,))


def _check_identity(
    member: Member, peers: Mapping[int, bytes] | None, pinned: Mapping[int, bytes]
) -> None:
    client = member.client
    if peers is not None and client not in peers:
        raise SecAggError(f"privacy.peers holds no key of client {client}", (client,))
    known = peers[client] if peers is not None else pinned.get(client, member.identity)
    if known != member.identity:
        where = "privacy.peers has" if peers is not None else "it had before in this run"
        raise SecAggError(
            f"client {client} has another identity than {where}: somebody may be in the middle",
            (client,),
        )
