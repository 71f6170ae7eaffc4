"""The paper's plain mean: every update weighs the same, whatever its rows."""

from __future__ import annotations

import numpy as np

from strategies.aggregations.weighted import weighted
from strategies.updates import Arrays, Parameters, Updates, Weights


class Uniform:
    """The plain mean; the noise of central privacy is made for such equal weights."""

    equal_weights = True
    of_mean = True
    weighs = False
    coordinatewise = True

    def __call__(self, updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
        """Return the mean of the updates."""
        return weighted(updates, np.ones(len(updates)), reference)


AGGREGATION = Uniform
