"""The median of the updates, coordinate by coordinate."""

from __future__ import annotations

import numpy as np

from strategies.updates import Arrays, Parameters, Updates, Weights


def median(updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
    """Return each coordinate's median (Yin et al. 2018)."""
    return {name: np.median([one[name] for one in updates], axis=0) for name in updates[0]}


AGGREGATION = median
