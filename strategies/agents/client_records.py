"""What each client's work was worth so far, the older the less: the bandits' memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DISCOUNT = 0.9
"""What a round counts beside the next round that was judged."""

SCALE_DISCOUNT = 0.5
"""The same for the scale, which falls with the loss."""


@dataclass
class Records:
    """Discounted numbers, by client; older rounds count `DISCOUNT` of the next.

    Attributes
    ----------
    scale : float
        How large benefits were lately: mean of their sizes over a round, then over rounds with
        weights that halve. 0 while nothing was judged.
    """

    scale: float = 0.0
    _counts: dict[int, float] = field(default_factory=dict)
    _sums: dict[int, float] = field(default_factory=dict)

    def add(self, benefits: Mapping[int, float]) -> None:
        """Add a round's benefits, nats by client; a round without any changes nothing."""
        if not benefits:
            return
        size = sum(abs(value) for value in benefits.values()) / len(benefits)
        first = not self._counts
        self.scale = size if first else self.scale + (1 - SCALE_DISCOUNT) * (size - self.scale)
        for kept in (self._counts, self._sums):
            for client in kept:
                kept[client] *= DISCOUNT
        for client, value in benefits.items():
            self._counts[client] = self._counts.get(client, 0.0) + 1.0
            self._sums[client] = self._sums.get(client, 0.0) + value

    def count(self, client: int) -> float:
        """Return the discounted number of rounds that a client was judged in."""
        return self._counts.get(client, 0.0)

    def mean(self, client: int) -> float | None:
        """Return the discounted mean of a client's benefits, nats; None if it has none."""
        count = self.count(client)
        return self._sums[client] / count if count > 0 else None

    @property
    def total(self) -> float:
        """Sum of all clients' counts."""
        return sum(self._counts.values())
