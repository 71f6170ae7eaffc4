"""A member's two steps: mask its update and share its seeds; give shares for what survived.

Double masking after Bonawitz et al., *Practical Secure Aggregation for Privacy-Preserving Machine
Learning* (CCS 2017), figure 4. A member also shares its pairwise seeds, with the masked vector
itself, so a round needs no message for sharing keys (as in Ma et al., *Flamingo*, S&P 2023).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from core.secagg import graph, masks, shamir
from core.secagg.errors import SecAggError
from core.secagg.fixed_point import encode
from core.secagg.group import FEWEST, Group
from core.secagg.keys import RoundPrivate
from core.secagg.messages import (
    NONCE_BYTES,
    Answer,
    Held,
    Masked,
    ciphertext_bytes,
    read_share,
    revealed,
    share_bytes,
)
from core.secagg.wire import MOST_LENGTH, Reader


def mask(
    private: RoundPrivate,
    client: int,
    group: Group,
    vector: npt.NDArray[np.float64],
    *,
    draw: Callable[[int], bytes] = secrets.token_bytes,
    below: Callable[[int], int] = secrets.randbelow,
) -> tuple[Masked, Held]:
    """Mask a vector and share what would take its masks off.

    The private keys serve one call: with a second vector the difference of both would be open.

    Parameters
    ----------
    private : RoundPrivate
        The member's keys of the round.
    client : int
        The member.
    group : Group
        As `check_group` accepted it.
    vector : array of float64
        What is to be summed, (length,).
    draw, below : callable
        Random bytes and numbers; from the system unless a test says otherwise.

    Returns
    -------
    masked : Masked
        For the server.
    held : Held
        For the member's `answer`.

    Raises
    ------
    SecAggError
        If a number cannot be represented, or the vector is too long.
    """
    if vector.ndim != 1 or len(vector) > MOST_LENGTH:
        raise SecAggError(f"the update has shape {vector.shape}; accepted: up to {MOST_LENGTH}")
    seeds = {client: draw(shamir.SECRET_BYTES)}
    for other in group.neighbours(client):
        public = group.member(other).keys.mask
        seeds[other] = masks.pair_seed(private.mask, public, group.digest, client, other)
    total = _hidden(vector, client, seeds)
    shares = _shares(seeds, client, group, below)
    commitments = {v: masks.commitment(group.digest, client, v, seeds[v]) for v in seeds}
    ciphertexts = {
        other: _encrypted(private, client, other, group, shares[other], draw)
        for other in group.neighbours(client)
    }
    channels = {
        other: _key(private, group, other, masks.channel(group.digest, other, client))
        for other in group.neighbours(client)
    }
    mine = dict(zip(sorted(seeds, key=lambda v: (v != client, v)), shares[client], strict=True))
    held = Held(client, group.digest, group.threshold, group.clients, mine, channels)
    return Masked(client, group.digest, total, commitments, ciphertexts), held


def _hidden(
    vector: npt.NDArray[np.float64], client: int, seeds: Mapping[int, bytes]
) -> npt.NDArray[np.uint64]:
    """Add the masks of a member's seeds, which cancel in the sum but for its own one."""
    total = encode(vector)
    for other in sorted(seeds):
        part = masks.mask_of(seeds[other], len(vector))
        total = total + part if other >= client else total - part
    return total


def answer(held: Held, survivors: Collection[int], ciphertexts: Mapping[int, bytes]) -> Answer:
    """Give shares of the survivors' own seeds and of their pairwise seeds with lost members.

    A member answers once a round: two answers could open a single update.

    Parameters
    ----------
    held : Held
        From `mask`; to be deleted before the answer leaves.
    survivors : collection of int
        Members whose masked vectors the server has and sums.
    ciphertexts : mapping
        By neighbour that survived: its shares for this member.

    Raises
    ------
    SecAggError
        If the survivors are too few, are no members or lack this one; or if shares were not made
        for this very group.
    """
    alive = set(survivors)
    _check_survivors(held, survivors)
    neighbours = graph.neighbours(held.digest, held.clients, held.threshold)
    wanted = alive & set(neighbours[held.client])
    if set(ciphertexts) != wanted:
        raise SecAggError("the shares that came are not those of the survivors")
    shares = {(held.client, v): share for v, share in held.shares.items()}
    for dealer in sorted(wanted):
        opened = _decrypted(held, dealer, ciphertexts[dealer], len(neighbours[dealer]))
        others = (dealer, *neighbours[dealer])
        shares.update({(dealer, v): s for v, s in zip(others, opened, strict=True)})
    given = revealed(neighbours, held.client, alive)
    return Answer(held.client, held.digest, {seed: shares[seed] for seed in given})


def _check_survivors(held: Held, survivors: Collection[int]) -> None:
    alive = set(survivors)
    if len(alive) != len(survivors) or not alive <= set(held.clients):
        raise SecAggError("the survivors are not members of the group, each once")
    if held.client not in alive:
        raise SecAggError("this site is not among the survivors, though it sent its update")
    if len(alive) < max(held.threshold, FEWEST):
        raise SecAggError(
            f"{len(alive)} of {len(held.clients)} members survived; at least {held.threshold} "
            "are needed"
        )


def _shares(
    seeds: Mapping[int, bytes], client: int, group: Group, below: Callable[[int], int]
) -> dict[int, list[int]]:
    """Return by holder its shares: of the own seed, then of the pairwise ones in order."""
    holders = sorted(seeds)
    points = [point_of(group, holder) for holder in holders]
    order = (client, *group.neighbours(client))
    parts: dict[int, list[int]] = {holder: [] for holder in holders}
    for other in order:
        secret = int.from_bytes(seeds[other], "big")
        made = shamir.split(secret, group.shares_needed, points, below)
        for holder, share in zip(holders, made, strict=True):
            parts[holder].append(share)
    return parts


def point_of(group: Group, client: int) -> int:
    """Return where a member's shares lie: its place in the group, from 1."""
    return group.clients.index(client) + 1


def _key(private: RoundPrivate, group: Group, other: int, context: bytes) -> bytes:
    return masks.agree(private.share, group.member(other).keys.share, context, 32)


def _encrypted(
    private: RoundPrivate,
    client: int,
    other: int,
    group: Group,
    shares: list[int],
    draw: Callable[[int], bytes],
) -> bytes:
    context, nonce = masks.channel(group.digest, client, other), draw(NONCE_BYTES)
    plain = b"".join(map(share_bytes, shares))
    key = _key(private, group, other, context)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, context)


def _decrypted(held: Held, dealer: int, data: bytes, neighbours: int) -> list[int]:
    context = masks.channel(held.digest, dealer, held.client)
    nonce, body = data[:NONCE_BYTES], data[NONCE_BYTES:]
    try:
        if len(data) != ciphertext_bytes(neighbours):
            raise InvalidTag
        plain = ChaCha20Poly1305(held.channels[dealer]).decrypt(nonce, body, context)
    except InvalidTag:
        raise SecAggError(
            f"the shares of client {dealer} were not made for this site, round and group", (dealer,)
        ) from None
    reader = Reader(plain, f"client {dealer}'s shares")
    try:
        return [read_share(reader) for _ in range(neighbours + 1)]
    except SecAggError as error:
        raise SecAggError(f"client {dealer}: {error.reason}", (dealer,)) from None
