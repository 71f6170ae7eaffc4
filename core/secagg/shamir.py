"""Shamir's secret sharing (Commun. ACM 22, 1979) of 128-bit secrets over a prime field."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

PRIME = 2**130 - 5
"""Order of the field: the smallest width in which every 128-bit secret has a place."""

SECRET_BYTES = 16
SHARE_BYTES = 17


def split(
    secret: int,
    threshold: int,
    points: Sequence[int],
    below: Callable[[int], int] = secrets.randbelow,
) -> list[int]:
    """Share a secret so that `threshold` shares give it back and fewer say nothing of it.

    Parameters
    ----------
    secret : int
        In [0, `PRIME`).
    threshold : int
        Shares that are needed.
    points : sequence of int
        One for each holder: distinct, not 0.
    below : callable
        Draws a uniform number below its argument; from the system unless a test says otherwise.

    Returns
    -------
    list of int
        Values at the points of a random polynomial of degree ``threshold - 1`` that is the secret
        at 0.
    """
    coefficients = [below(PRIME) for _ in range(threshold - 1)]
    shares = []
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value + coefficient) * point % PRIME
        shares.append((value + secret) % PRIME)
    return shares


def value_at(place: int, shares: Mapping[int, int]) -> int:
    """Return the value at a place of the polynomial of lowest degree through some shares.

    Parameters
    ----------
    place : int
        0 for the secret.
    shares : mapping
        Share by point; as many as the threshold.
    """
    points = tuple(shares)
    factors = _lagrange(place, points)
    return sum(f * shares[p] for f, p in zip(factors, points, strict=True)) % PRIME


def combine(shares: Mapping[int, int]) -> int:
    """Return the secret of as many shares, by point, as the threshold."""
    return value_at(0, shares)


@lru_cache(maxsize=1024)
def _lagrange(place: int, points: tuple[int, ...]) -> tuple[int, ...]:
    """Return what each share counts for; the same holders answer for many secrets."""
    factors = []
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above = above * (place - other) % PRIME
                below = below * (point - other) % PRIME
        factors.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(factors)
