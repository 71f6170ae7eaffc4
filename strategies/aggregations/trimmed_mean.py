"""The mean of the updates without the smallest and largest of each coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from core import Settings
from strategies.updates import Arrays, Parameters, Updates, Weights


def trimmed(updates: int, trim: float) -> int:
    """Return how many of the updates a share is: of three or more at least one."""
    # Rounding down alone would trim nobody of four at a fifth.
    least = (1 + 1e-9) / updates if updates >= 3 else 0.0
    return int(max(trim, least) * updates)


@dataclass(frozen=True)
class TrimmedMean:
    """The trimmed mean of each coordinate (Yin et al. 2018)."""

    trim: float
    uses: ClassVar[tuple[str, ...]] = ("aggregation.trim",)
    weighs: ClassVar[bool] = False
    coordinatewise: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, settings: Settings) -> TrimmedMean:
        """Build the aggregation."""
        return cls(settings.aggregation.trim)

    def __call__(self, updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
        """Return the mean of what is left of each coordinate."""
        count, cut = len(updates), trimmed(len(updates), self.trim)

        def inner(values: list[Any]) -> Any:
            parted = np.partition(np.stack(values), (cut, count - cut - 1), axis=0)
            return np.mean(parted[cut : count - cut], axis=0)

        return {name: inner([one[name] for one in updates]) for name in updates[0]}


AGGREGATION = TrimmedMean
