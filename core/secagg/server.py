"""The server's step: restore the seeds of what is left in the sum, and take the masks off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, combinations, islice

import numpy as np
import numpy.typing as npt

from core.secagg import masks, shamir
from core.secagg.errors import SecAggError
from core.secagg.fixed_point import decode
from core.secagg.group import Group
from core.secagg.messages import Answer, Masked, Seed

MOST_TRIES = 2000
"""Subsets of the shares of one seed that are tried when some of them are wrong."""


@dataclass(frozen=True, eq=False)
class GroupSum:
    """What the server learns of a group.

    Attributes
    ----------
    vector : array of float64
        The sum of the members' vectors.
    members : tuple of int
        Whose; ascending.
    liars : tuple of int
        Members that sent wrong shares, or were dealt wrong ones; the sum is right all the same.
    """

    vector: npt.NDArray[np.float64]
    members: tuple[int, ...]
    liars: tuple[int, ...] = ()


def ciphertexts_for(client: int, group: Group, masked: Mapping[int, Masked]) -> dict[int, bytes]:
    """Return what a survivor needs for its answer: its surviving neighbours' shares for it."""
    return {u: masked[u].ciphertexts[client] for u in group.neighbours(client) if u in masked}


def unmask(group: Group, masked: Mapping[int, Masked], answers: Mapping[int, Answer]) -> GroupSum:
    """Open the sum of a group.

    Parameters
    ----------
    group : Group
        As it was sent.
    masked : mapping
        By survivor, its masked vector (`read_masked`).
    answers : mapping
        By survivor that answered, its shares (`read_answer`) for exactly these survivors.

    Raises
    ------
    SecAggError
        If too few survived or answered, or a seed cannot be restored.
    """
    for what, there in (("sent their masked updates", masked), ("answered", answers)):
        if len(there) < group.threshold:
            raise SecAggError(
                f"{len(there)} of {len(group.members)} members {what}; at least "
                f"{group.threshold} are needed"
            )
    liars: set[int] = set()
    total: npt.NDArray[np.uint64] = np.zeros_like(next(iter(masked.values())).vector)
    for one in masked.values():
        total = total + one.vector
    for dealer in sorted(masked):
        others = [v for v in group.neighbours(dealer) if v not in masked]
        for other in (dealer, *others):
            seed, wrong = _restored((dealer, other), group, masked, answers, liars)
            liars |= wrong
            part = masks.mask_of(seed, len(total))
            total = total - part if other >= dealer else total + part
    return GroupSum(decode(total), tuple(sorted(masked)), tuple(sorted(liars)))


def _restored(
    seed: Seed,
    group: Group,
    masked: Mapping[int, Masked],
    answers: Mapping[int, Answer],
    liars: set[int],
) -> tuple[bytes, set[int]]:
    """Return a seed, and who sent wrong shares of it: they were dealt so, or changed."""
    dealer, other = seed
    places = {client: place for place, client in enumerate(group.clients, 1)}
    shares = {
        places[client]: answers[client].shares[seed]
        for client in sorted(answers, key=lambda c: (c in liars, c))
        if seed in answers[client].shares
    }
    needed, published = group.shares_needed, masked[dealer].commitments[other]

    def right(secret: int) -> bool:
        if secret >= 2 ** (8 * shamir.SECRET_BYTES):
            return False
        data = secret.to_bytes(shamir.SECRET_BYTES, "big")
        return masks.commitment(group.digest, dealer, other, data) == published

    if len(shares) < needed:
        raise SecAggError(
            f"a seed of client {dealer} has {len(shares)} shares; {needed} are needed"
        )
    found = _open(shares, needed, right)
    if found is None:
        raise _unopened(dealer, shares, needed)
    secret, wrong = found
    named = {group.clients[place - 1] for place in wrong}
    return secret.to_bytes(shamir.SECRET_BYTES, "big"), named


def _open(
    shares: Mapping[int, int], needed: int, right: Callable[[int], bool]
) -> tuple[int, set[int]] | None:
    """Return a secret and the points of wrong shares, or None where no subset gives it.

    Tries what is left without none of the shares, without each, without each two, and so on: a few
    liars among many honest members are found early.
    """
    spare = range(len(shares) - needed + 1)
    without = chain.from_iterable(combinations(shares, count) for count in spare)
    for left_out in islice(without, MOST_TRIES):
        points = [point for point in shares if point not in left_out][:needed]
        chosen = {point: shares[point] for point in points}
        secret = shamir.combine(chosen)
        if right(secret):
            rest = set(shares) - set(points)
            return secret, {p for p in rest if shamir.value_at(p, chosen) != shares[p]}
    return None


def _unopened(dealer: int, shares: Mapping[int, int], needed: int) -> SecAggError:
    """Return the error of a seed that no subset gives, with its dealer where that one did it."""
    chosen = {point: shares[point] for point in list(shares)[:needed]}
    rest = [point for point in shares if point not in chosen]
    agree = all(shamir.value_at(point, chosen) == shares[point] for point in rest)
    if rest and agree:  # one polynomial, another secret than the dealer committed to
        return SecAggError(f"client {dealer} shared another seed than it committed to", (dealer,))
    return SecAggError(
        f"a seed of client {dealer} cannot be restored: some of its {len(shares)} shares are wrong"
    )
