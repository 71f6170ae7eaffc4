"""MultiKrum: the mean of the updates that lie nearest to the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core import Settings
from strategies.aggregations.trimmed_mean import trimmed
from strategies.aggregations.weighted import weighted
from strategies.updates import Arrays, Parameters, Updates, Weights


@dataclass(frozen=True)
class Krum:
    """MultiKrum (Blanchard et al. 2017): the mean by rows of the n - f - 2 updates of lowest score.

    An update's score is the sum of squared distances to the n - f - 2 others nearest to it. f, how
    many may be forged, is the share `aggregation.trim` of n.
    """

    trim: float
    uses: ClassVar[tuple[str, ...]] = ("aggregation.trim",)

    @classmethod
    def from_settings(cls, settings: Settings) -> Krum:
        """Build the aggregation."""
        return cls(settings.aggregation.trim)

    def __call__(self, updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
        """Return the mean by rows of those selected."""
        near = max(1, len(updates) - trimmed(len(updates), self.trim) - 2)
        flat = np.stack(
            [np.concatenate([one[k] for k in sorted(one)], axis=None) for one in updates]
        )
        norms = np.square(flat).sum(axis=1)
        squares = norms[:, None] + norms[None, :] - 2 * flat @ flat.T
        nearest = np.argsort(squares, axis=1)[:, 1 : near + 1]  # the first is the update itself
        scores = np.take_along_axis(squares, nearest, axis=1).sum(axis=1)
        best = np.argsort(scores)[:near]
        return weighted([updates[k] for k in best], weights[best], reference)


AGGREGATION = Krum
