"""What a member sends of a round: its masked vector with shares, and its answer to unmasking."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.secagg.errors import SecAggError
from core.secagg.group import Group
from core.secagg.masks import COMMITMENT_BYTES
from core.secagg.shamir import PRIME, SHARE_BYTES
from core.secagg.wire import MOST_LENGTH, MOST_MEMBERS, Reader, number_bytes

DIGEST_BYTES = 32
NONCE_BYTES, TAG_BYTES = 12, 16

Seed = tuple[int, int]
"""Whose seed: its dealer and the other member of the pair, or the dealer twice for its own."""


@dataclass(frozen=True, eq=False)
class Masked:
    """A member's only message that depends on its update.

    Attributes
    ----------
    client : int
        The member.
    digest : bytes
        Of the group that it was made for, 32 bytes.
    vector : array of uint64
        The update in the ring plus all masks.
    commitments : mapping
        By the other member of a pairwise seed; under the member's own index, its own seed's.
    ciphertexts : mapping
        By neighbour: its shares of this member's seeds, encrypted for it.
    """

    client: int
    digest: bytes
    vector: npt.NDArray[np.uint64]
    commitments: Mapping[int, bytes]
    ciphertexts: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """Write all of it: 8 bytes for a number, and about 17 (k + 5) for each of k neighbours."""
        others = sorted(self.ciphertexts)
        head = self.digest + number_bytes(self.client) + number_bytes(len(self.vector))
        head += number_bytes(len(others)) + self.commitments[self.client]
        parts = (number_bytes(v) + self.commitments[v] + self.ciphertexts[v] for v in others)
        return head + b"".join(parts) + self.vector.astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Masked:
        """Read what a client sent; `read_masked` also holds it against the group.

        Raises
        ------
        SecAggError
            If it is no such message.
        """
        reader = Reader(data, "a masked update")
        digest, client = reader.take(DIGEST_BYTES), reader.number(2**31)
        length, others = reader.number(MOST_LENGTH), reader.number(MOST_MEMBERS)
        commitments, ciphertexts = {client: reader.take(COMMITMENT_BYTES)}, {}
        other = -1
        for _ in range(others):
            other = _neighbour(reader, other, client)
            commitments[other] = reader.take(COMMITMENT_BYTES)
            ciphertexts[other] = reader.take(ciphertext_bytes(others))
        vector = np.frombuffer(reader.take(8 * length), "<u8").astype(np.uint64)
        reader.end()
        return cls(client, digest, vector, commitments, ciphertexts)


@dataclass(frozen=True)
class Held:
    """What a member keeps between its two messages, and deletes with the second.

    Attributes
    ----------
    client, digest, threshold, clients
        The member, and what it has to know of its group.
    shares : mapping
        Its own shares of its own seeds, by the other member; its own seed's under its index.
    channels : mapping
        By neighbour, the key under which that one's shares come.
    """

    client: int
    digest: bytes
    threshold: int
    clients: tuple[int, ...]
    shares: Mapping[int, int]
    channels: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """Write all of it."""
        head = self.digest + number_bytes(self.client) + number_bytes(self.threshold)
        head += number_bytes(len(self.clients)) + b"".join(map(number_bytes, self.clients))
        head += number_bytes(len(self.channels)) + share_bytes(self.shares[self.client])
        parts = (number_bytes(v) + share_bytes(self.shares[v]) + key for v, key in self._peers())
        return head + b"".join(parts)

    def _peers(self) -> list[tuple[int, bytes]]:
        return sorted(self.channels.items())

    @classmethod
    def from_bytes(cls, data: bytes) -> Held:
        """Read what `to_bytes` wrote.

        Raises
        ------
        SecAggError
            If it is something else.
        """
        reader = Reader(data, "what a site holds of a round")
        digest, client = reader.take(DIGEST_BYTES), reader.number(2**31)
        threshold = reader.number(MOST_MEMBERS)
        clients = tuple(reader.number(2**31) for _ in range(reader.number(MOST_MEMBERS)))
        others = reader.number(MOST_MEMBERS)
        shares, channels = {client: read_share(reader)}, {}
        other = -1
        for _ in range(others):
            other = _neighbour(reader, other, client)
            shares[other], channels[other] = read_share(reader), reader.take(32)
        reader.end()
        return cls(client, digest, threshold, clients, shares, channels)


@dataclass(frozen=True)
class Answer:
    """A member's shares of what takes the masks off a sum.

    Attributes
    ----------
    client : int
        The member.
    digest : bytes
        Of the group.
    shares : mapping
        By seed: of each survivor's own seed, and of the pairwise seeds of survivors and lost.
    """

    client: int
    digest: bytes
    shares: Mapping[Seed, int]

    def to_bytes(self) -> bytes:
        """Write 36 bytes, and 17 for each share in ascending order of the seeds."""
        parts = (share_bytes(self.shares[seed]) for seed in sorted(self.shares))
        return self.digest + number_bytes(self.client) + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, seeds: Collection[Seed]) -> Answer:
        """Read what a client sent when it should hold shares of some seeds.

        Raises
        ------
        SecAggError
            If it is no such message.
        """
        reader = Reader(data, "an answer to unmasking")
        digest, client = reader.take(DIGEST_BYTES), reader.number(2**31)
        shares = {seed: read_share(reader) for seed in sorted(seeds)}
        reader.end()
        return cls(client, digest, shares)


def _neighbour(reader: Reader, before: int, client: int) -> int:
    """Read the next of a client's neighbours, which stand in ascending order."""
    other = reader.above(before, 2**31)
    if other == client:
        raise SecAggError(f"client {client} is no neighbour of its own")
    return other


def ciphertext_bytes(neighbours: int) -> int:
    """Return the length of a ciphertext: a share of each of the dealer's seeds."""
    return NONCE_BYTES + TAG_BYTES + SHARE_BYTES * (neighbours + 1)


def share_bytes(share: int) -> bytes:
    """Write a share."""
    return share.to_bytes(SHARE_BYTES, "big")


def read_share(reader: Reader) -> int:
    """Read a share.

    Raises
    ------
    SecAggError
        If it is no element of the field.
    """
    share = int.from_bytes(reader.take(SHARE_BYTES), "big")
    if share >= PRIME:
        raise SecAggError("a share is no element of the field")
    return share


def revealed(
    graph: Mapping[int, tuple[int, ...]], client: int, survivors: Collection[int]
) -> list[Seed]:
    """Return of which seeds a member gives its shares, ascending.

    Its own and its neighbours', as far as they survived: each one's own seed, and its pairwise
    seeds with lost members. A lost member's own seed stays hidden, and so do those of two
    survivors.
    """
    alive = set(survivors)
    dealers = sorted(alive & {client, *graph[client]})
    return [(u, v) for u in dealers for v in sorted({u, *graph[u]} - (alive - {u}))]


def read_masked(data: bytes, group: Group, client: int, length: int) -> Masked:
    """Read a client's masked update and hold it against its group.

    Parameters
    ----------
    data : bytes
        What it sent.
    group : Group
        What it was sent.
    client : int
        The client.
    length : int
        Numbers that the vector must have.

    Raises
    ------
    SecAggError
        With the first thing that is wrong; it names the client.
    """
    try:
        masked = Masked.from_bytes(data)
    except SecAggError as error:
        raise SecAggError(f"client {client}: {error.reason}", (client,)) from None
    neighbours = group.neighbours(client)
    if masked.client != client or masked.digest != group.digest:
        what = "is of another client, group or round"
    elif len(masked.vector) != length:
        what = f"holds {len(masked.vector)} numbers instead of {length}"
    elif tuple(sorted(masked.ciphertexts)) != neighbours:
        what = "has shares for others than its neighbours"
    else:
        return masked
    raise SecAggError(f"client {client}'s masked update {what}", (client,))


def read_answer(data: bytes, group: Group, client: int, survivors: Collection[int]) -> Answer:
    """Read a client's answer to unmasking and hold it against its group.

    Raises
    ------
    SecAggError
        With the first thing that is wrong; it names the client.
    """
    try:
        made = Answer.from_bytes(data, revealed(group.graph, client, survivors))
    except SecAggError as error:
        raise SecAggError(f"client {client}: {error.reason}", (client,)) from None
    if made.client != client or made.digest != group.digest:
        raise SecAggError(
            f"client {client}'s answer is of another client, group or round", (client,)
        )
    return made
