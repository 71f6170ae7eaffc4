"""The median of the updates, coordinate by coordinate."""

from __future__ import annotations

import numpy as np

from strategies.updates import Arrays, Parameters, Updates, Weights


class Median:
    """Each coordinate's median (Yin et al. 2018), whatever the sites' rows."""

    weighs = False
    coordinatewise = True

    def __call__(self, updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
        """Return the median of each coordinate."""
        return {name: np.median([one[name] for one in updates], axis=0) for name in updates[0]}


AGGREGATION = Median
