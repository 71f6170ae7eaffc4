"""How far chance alone may move an accuracy: intervals from numbers of rows; pure, light."""

from __future__ import annotations

import math

from core.formatting import is_number

Z = 1.959963984540054
"""Of the standard normal distribution, 95 % lie between -Z and Z."""

Interval = tuple[float, float]


def wilson_interval(share: object, rows: object) -> Interval | None:
    """Return the 95 % interval of a share that was counted in so many rows.

    Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927): it stays within 0 and 1
    and is right for few rows and for shares near 0 and 1.

    Parameters
    ----------
    share : float
        Hits over rows, 0 to 1.
    rows : int
        Rows, at least 1.

    Returns
    -------
    tuple of float, or None
        Lowest and highest share; None where one of them is not on record.
    """
    if not (is_number(share) and is_number(rows)):
        return None
    p, n = float(share), float(rows)  # type: ignore[arg-type]
    if not 0 <= p <= 1 or n < 1:
        return None
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((centre + sign * spread) / (1 + Z**2 / n) for sign in (-1, 1))
    return min(p, max(0.0, low)), max(p, min(1.0, high))


def difference_interval(first: float, second: float, rows: object) -> Interval | None:
    """Return the 95 % interval of first less second, two shares that were counted in as many rows.

    Newcombe's method 10 (Stat. Med. 17, 1998), for independent samples: of two models on the same
    rows it is too wide rather than too narrow.
    """
    one, other = wilson_interval(first, rows), wilson_interval(second, rows)
    if one is None or other is None:
        return None
    below = math.hypot(first - one[0], other[1] - second)
    above = math.hypot(one[1] - first, second - other[0])
    return first - second - below, first - second + above
