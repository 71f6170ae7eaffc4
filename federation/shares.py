"""How many clients a share of them is."""

from __future__ import annotations

import math


def selection_size(clients: int, fraction: float) -> int:
    """Return how many of `clients` a `fraction` keeps: rounded up, at least one, at most all."""
    # Rounding first keeps 0.7 * 10 = 7.000000000000001 from becoming eight clients.
    return min(clients, max(1, math.ceil(round(fraction * clients, 9))))
