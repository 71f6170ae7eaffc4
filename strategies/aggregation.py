"""How checked updates become the next global parameters: bounded, aggregated, noised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from core import Settings
from core.flower_compat import noise_deviation
from core.messages import pack_parameters
from core.privacy import clipped, noise_seed, noised
from core.settings.aggregation import takes_mean
from strategies.aggregators import Aggregator, Contribution
from strategies.updates import Arrays, Parameters, clip_to_centre


@dataclass(frozen=True)
class Aggregate:
    """The new global parameters.

    Attributes
    ----------
    arrays : ArrayRecord
        The parameters.
    shares : list of float
        By what each update's distance to the others was multiplied (`clip_to_centre`).
    """

    arrays: ArrayRecord
    shares: list[float]


def aggregate(
    settings: Settings,
    server_round: int,
    contributions: Sequence[Contribution],
    aggregator: Aggregator,
    reference: Arrays,
) -> Aggregate:
    """Aggregate checked models by the run's rule.

    Updates far from the others are moved towards them first (`clip_to_centre`). With central
    privacy each update is clipped instead, and noise is added to their mean.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    server_round : int
        The round.
    contributions : sequence of Contribution
        What is aggregated; at least one.
    aggregator : Aggregator
        The rule, with what it keeps between rounds.
    reference : mapping
        The round's global arrays, from which updates are measured; empty: the sites had none.

    Raises
    ------
    ValueError
        If there is central privacy and no reference: nothing goes out without its noise.
    """
    models, shares = _bounded(settings, [one.arrays for one in contributions], reference)
    parts = [
        Contribution(arrays, one.weight, one.report)
        for one, arrays in zip(contributions, models, strict=True)
    ]
    if settings.privacy.secure_aggregation and takes_mean(settings.aggregation.rule):
        parts = [_merged(parts)]  # groups of unequal size: the mean of all, not of the groups
    arrays = aggregator.aggregate(server_round, parts, reference)
    if settings.privacy.dp == "central":
        arrays = _noised(arrays, settings, server_round, len(parts))
    return Aggregate(pack_parameters(arrays), shares)


def _merged(groups: Sequence[Contribution]) -> Contribution:
    """Return the weighted mean of groups as one contribution."""
    weights = np.array([one.weight for one in groups], np.float64)
    shares = weights / weights.sum()
    arrays = {
        name: sum(
            share * np.asarray(one.arrays[name], np.float64)
            for share, one in zip(shares.tolist(), groups, strict=True)
        ).astype(like.dtype)
        for name, like in groups[0].arrays.items()
    }
    return Contribution(arrays, float(weights.sum()), groups[0].report)


def _bounded(
    settings: Settings, models: Sequence[Parameters], reference: Arrays
) -> tuple[list[Parameters], list[float]]:
    """Bound what each model can do to the mean, by the rule or by central privacy."""
    if settings.privacy.dp != "central":
        least = settings.train.learning_rate
        return clip_to_centre(models, settings.aggregation.clip_radius, least)
    if not reference:
        raise ValueError("privacy.dp = 'central' without the round's global arrays")
    bounded = [clipped(model, reference, settings.privacy.clip) for model in models]
    return bounded, [1.0] * len(bounded)


def _noised(arrays: Parameters, settings: Settings, server_round: int, updates: int) -> Parameters:
    """Add noise to a mean of clipped updates, as for their sum (McMahan 2018)."""
    privacy = settings.privacy
    deviation = noise_deviation(privacy.noise, privacy.clip, updates)
    return noised(arrays, deviation, noise_seed(settings, "aggregate", server_round))
