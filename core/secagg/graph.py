"""Who masks with whom: everybody, or in a large group a random regular graph.

After Bell et al., *Secure Single-Server Aggregation with (Poly)Logarithmic Overhead* (CCS 2020),
section 3: a ring in random order in which a member's neighbours are the next ones on both sides.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

from core.secagg.wire import number_bytes

COMPLETE_UP_TO = 56
"""Members up to which everybody is everybody's neighbour: at most 58 KB of shares."""

MOST_UNOPENED = 1e-3
"""Largest probability that a large group cannot be opened though only `threshold` members stay."""


def neighbours(digest: bytes, clients: Sequence[int], threshold: int) -> dict[int, tuple[int, ...]]:
    """Return every member's neighbours, in ascending order.

    Parameters
    ----------
    digest : bytes
        Of the group: it puts the ring in order.
    clients : sequence of int
        The members.
    threshold : int
        Of the group.
    """
    many = degree(len(clients), threshold)
    if many >= len(clients) - 1:
        return {c: tuple(sorted(set(clients) - {c})) for c in clients}
    ring = sorted(clients, key=lambda c: hashlib.sha256(digest + number_bytes(c)).digest())
    steps = [step for step in range(-many // 2, many // 2 + 1) if step]
    return {
        c: tuple(sorted(ring[(at + step) % len(ring)] for step in steps))
        for at, c in enumerate(ring)
    }


def shares_needed(members: int, threshold: int) -> int:
    """Return how many shares restore a seed.

    The group's threshold where the graph is complete; else a majority of a member's neighbours
    and itself.
    """
    holders = degree(members, threshold) + 1
    return threshold if holders >= members else holders // 2 + 1


@lru_cache(maxsize=64)
def degree(members: int, threshold: int) -> int:
    """Return how many neighbours a member has.

    In a large group, the fewest (an even number) for which a random graph leaves each of them a
    majority of holders with probability ``1 - MOST_UNOPENED`` where only `threshold` members
    answer: a hypergeometric tail, by a union bound over the members.
    """
    if members <= COMPLETE_UP_TO:
        return members - 1
    for found in range(2, members - 1, 2):
        fewest = found // 2  # of the neighbours; a member that answers holds a share itself
        if members * _tail(members - 1, threshold - 1, found, fewest) <= MOST_UNOPENED:
            return found
    return members - 1


def _tail(total: int, alive: int, drawn: int, fewest: int) -> float:
    """Return the probability that fewer than `fewest` of those drawn are alive."""
    ways = (
        math.comb(alive, k) * math.comb(total - alive, drawn - k)
        for k in range(max(0, drawn - total + alive), fewest)
    )
    return sum(ways) / math.comb(total, drawn)
