"""A site's keys for every round of a run, and the signed table of their public halves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from core.secagg.errors import SecAggError
from core.secagg.identity import (
    IDENTITY_BYTES,
    SIGNATURE_BYTES,
    Identity,
    check_identity,
    verify,
)
from core.secagg.wire import MOST_ROUNDS, Reader, number_bytes

KEY_BYTES = 32
_CONTEXT = b"llm-qfl secagg keys 1"
_LONGEST_RUN = 100


@dataclass(frozen=True)
class SignedKeys:
    """Public keys of one client for one round, signed with its identity.

    Attributes
    ----------
    mask, share : bytes
        X25519 public keys, 32 bytes: for pairwise masks, and for shares on their way.
    signature : bytes
        ECDSA over run, client, round and both keys, 96 bytes.
    """

    mask: bytes
    share: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """Write 160 bytes."""
        return self.mask + self.share + self.signature

    @classmethod
    def read(cls, reader: Reader) -> SignedKeys:
        """Read what `to_bytes` wrote."""
        mask, share = reader.take(KEY_BYTES), reader.take(KEY_BYTES)
        return cls(mask, share, reader.take(SIGNATURE_BYTES))

    def signed_by(self, identity: bytes, run: str, client: int, number: int) -> bool:
        """Whether an identity has signed them for a round."""
        data = _signed_bytes(run, client, number, self.mask, self.share)
        return verify(identity, self.signature, data)


@dataclass(frozen=True)
class RoundPrivate:
    """Private keys of one client for one round; to be deleted once `site.mask` has used them.

    Attributes
    ----------
    mask, share : bytes
        X25519 private keys, 32 bytes.
    """

    mask: bytes
    share: bytes

    @property
    def public(self) -> tuple[bytes, bytes]:
        """The public keys, in the same order."""
        return _public(self.mask), _public(self.share)

    def to_bytes(self) -> bytes:
        """Write 64 bytes."""
        return self.mask + self.share

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundPrivate:
        """Read what `to_bytes` wrote.

        Raises
        ------
        SecAggError
            If it is something else.
        """
        reader = Reader(data, "a pair of private keys")
        made = cls(reader.take(KEY_BYTES), reader.take(KEY_BYTES))
        reader.end()
        return made


@dataclass(frozen=True)
class KeyTable:
    """What a site publishes once a run.

    Attributes
    ----------
    identity : bytes
        Its identity, 49 bytes.
    keys : mapping
        Signed keys by round.
    knows_peers : bool
        Whether it holds the others' identities against keys that it was given beforehand.
    """

    identity: bytes
    keys: Mapping[int, SignedKeys]
    knows_peers: bool = False

    def to_bytes(self) -> bytes:
        """Write 57 bytes, and 164 for each round."""
        rounds = (number_bytes(number) + self.keys[number].to_bytes() for number in self.keys)
        head = self.identity + number_bytes(self.knows_peers) + number_bytes(len(self.keys))
        return head + b"".join(rounds)

    @classmethod
    def from_bytes(cls, data: bytes) -> KeyTable:
        """Read what a client sent.

        Raises
        ------
        SecAggError
            If it is no table.
        """
        reader = Reader(data, "a table of keys")
        identity = reader.take(IDENTITY_BYTES)
        check_identity(identity)
        knows_peers = bool(reader.number(1))
        keys: dict[int, SignedKeys] = {}
        for _ in range(reader.number(MOST_ROUNDS)):
            number = reader.number(2**31)
            if number in keys:
                raise SecAggError(f"a table of keys has round {number} twice")
            keys[number] = SignedKeys.read(reader)
        reader.end()
        return cls(identity, keys, knows_peers)


def make_table(
    identity: Identity,
    run: str,
    client: int,
    rounds: Iterable[int],
    knows_peers: bool = False,
) -> tuple[dict[int, RoundPrivate], KeyTable]:
    """Make fresh keys for every round and sign the public ones.

    Parameters
    ----------
    identity : Identity
        The site's.
    run : str
        The run's id.
    client : int
        The client's index.
    rounds : iterable of int
        Rounds that may come.
    knows_peers : bool
        Of the table.

    Returns
    -------
    privates : dict
        By round; they never leave the site.
    table : KeyTable
        For the server and, through it, for the other members.
    """
    privates, signed = {}, {}
    for number in rounds:
        privates[number] = RoundPrivate(_private(), _private())
        mask, share = privates[number].public
        signature = identity.sign(_signed_bytes(run, client, number, mask, share))
        signed[number] = SignedKeys(mask, share, signature)
    return privates, KeyTable(identity.public, signed, knows_peers)


def check_table(table: KeyTable, run: str, client: int, rounds: Iterable[int]) -> None:
    """Refuse a table that does not serve a run, before a group is made of it.

    Raises
    ------
    SecAggError
        If a round is missing or its keys are not signed by the table's identity.
    """
    for number in rounds:
        if number not in table.keys:
            raise SecAggError(f"client {client} sent no keys for round {number}", (client,))
        if not table.keys[number].signed_by(table.identity, run, client, number):
            raise SecAggError(
                f"client {client}'s keys of round {number} are not signed by its identity",
                (client,),
            )


def _signed_bytes(run: str, client: int, number: int, mask: bytes, share: bytes) -> bytes:
    name = run.encode()
    if not 1 <= len(name) <= _LONGEST_RUN:
        raise SecAggError(f"a run's id has {len(name)} bytes; accepted: 1 to {_LONGEST_RUN}")
    place = number_bytes(len(name)) + name + number_bytes(client) + number_bytes(number)
    return _CONTEXT + place + mask + share


def _private() -> bytes:
    return X25519PrivateKey.generate().private_bytes_raw()


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
