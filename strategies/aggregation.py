"""How checked updates become the next global parameters: bounded, then averaged by Flower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum, Strategy

from core import Settings
from core.flower_compat import noise_deviation, only_warnings
from core.messages import (
    METRICS,
    TRAIN,
    WEIGHT_KEY,
    AdaptReport,
    Parameters,
    TrainReport,
    pack_parameters,
    pack_report,
    unpack_parameters,
)
from core.privacy import clipped, noise_seed, noised

Arrays = Mapping[str, npt.NDArray[Any]]

UNIFORM_KEY = "one"
"""Metric that is 1 in every reply: weighting by it is the paper's plain mean."""


def update_norm(update: Arrays, reference: Arrays) -> float:
    """Return the 2-norm of the difference of two parameter sets, all arrays together."""
    squares = [
        float(np.sum((np.asarray(update[k], np.float64) - np.asarray(reference[k])) ** 2))
        for k in reference
    ]
    return float(np.sqrt(sum(squares)))


def build_aggregator(settings: Settings, updates: int) -> Strategy:
    """Return Flower's strategy that aggregates checked replies.

    ``weighted`` is FedAvg by rows, ``uniform`` FedAvg by equal weights (the paper), ``median``
    FedMedian and ``trimmed-mean`` FedTrimmedAvg, which here trims at least one update from each
    end where there are three or more. ``krum`` is MultiKrum (Blanchard et al. 2017), the mean by
    rows of the n - f - 2 updates nearest to the others, with f as many as are trimmed. Only their
    ``aggregate_train`` is used.

    Parameters
    ----------
    settings : Settings
        The rule.
    updates : int
        Updates to be aggregated.
    """
    rule = settings.aggregation.rule
    if rule == "median":
        return FedMedian(weighted_by_key=WEIGHT_KEY)
    # Flower rounds the count down: a fifth of four updates would trim nobody.
    least = (1 + 1e-9) / updates if updates >= 3 else 0.0
    beta = max(settings.aggregation.trim, least)
    if rule == "trimmed-mean":
        return FedTrimmedAvg(beta=beta, weighted_by_key=WEIGHT_KEY)
    if rule == "krum":
        liars = int(beta * updates)
        return MultiKrum(
            num_malicious_nodes=liars,
            num_nodes_to_select=max(1, updates - liars - 2),
            weighted_by_key=WEIGHT_KEY,
        )
    return FedAvg(weighted_by_key=WEIGHT_KEY if rule == "weighted" else UNIFORM_KEY)


@dataclass(frozen=True)
class Contribution:
    """A checked model, the rows that it weighs, and the numbers that came with it."""

    arrays: Parameters
    rows: int
    report: AdaptReport | TrainReport


@dataclass(frozen=True)
class Aggregate:
    """The new global parameters.

    Attributes
    ----------
    arrays : ArrayRecord
        The parameters.
    metrics : MetricRecord or None
        The clients' numbers, as Flower averages them.
    shares : list of float
        By what each update's distance to the others was multiplied (`clip_to_centre`).
    """

    arrays: ArrayRecord
    metrics: MetricRecord | None
    shares: list[float]


def aggregate(
    settings: Settings,
    server_round: int,
    contributions: Sequence[Contribution],
    reference: Arrays | None = None,
    *,
    quiet: bool = False,
) -> Aggregate:
    """Aggregate checked models by one of Flower's strategies.

    Updates far from the others are moved towards them first (`clip_to_centre`). With central
    privacy each update is clipped instead, and noise is added to their mean.

    Parameters
    ----------
    settings : Settings
        The rule.
    server_round : int
        The round.
    contributions : sequence of Contribution
        What is aggregated; at least one.
    reference : mapping, optional
        The round's global arrays, from which updates are measured.
    quiet : bool
        Whether Flower's line for each aggregation is kept out of the log.

    Raises
    ------
    ValueError
        If there is central privacy and no reference: nothing goes out without its noise.
    """
    models, shares = _bounded(settings, [one.arrays for one in contributions], reference)
    messages = [_message(one, arrays) for one, arrays in zip(contributions, models, strict=True)]
    aggregator = build_aggregator(settings, len(messages))
    with only_warnings() if quiet else nullcontext():
        arrays, metrics = aggregator.aggregate_train(server_round, messages)
    assert arrays is not None  # there are messages, checked and alike
    if settings.privacy.dp == "central":
        arrays = _noised(arrays, settings, server_round, len(messages))
    return Aggregate(arrays, metrics, shares)


def _bounded(
    settings: Settings, models: Sequence[Parameters], reference: Arrays | None
) -> tuple[list[Parameters], list[float]]:
    """Bound what each model can do to the mean, by the rule or by central privacy."""
    if settings.privacy.dp != "central":
        least = settings.train.learning_rate
        return clip_to_centre(models, settings.aggregation.clip_radius, least)
    if reference is None:
        raise ValueError("privacy.dp = 'central' without the round's global arrays")
    bounded = [clipped(model, reference, settings.privacy.clip) for model in models]
    return bounded, [1.0] * len(bounded)


def _message(contribution: Contribution, arrays: Parameters) -> Message:
    """Build the reply that Flower's strategies read, of checked numbers only."""
    content = pack_report(contribution.report, arrays)
    content.metric_records[METRICS].update({WEIGHT_KEY: contribution.rows, UNIFORM_KEY: 1})
    return Message(content, dst_node_id=0, message_type=TRAIN)


def _noised(
    arrays: ArrayRecord, settings: Settings, server_round: int, updates: int
) -> ArrayRecord:
    """Add noise to a mean of clipped updates, as for their sum (McMahan 2018)."""
    privacy = settings.privacy
    deviation = noise_deviation(privacy.noise, privacy.clip, updates)
    seed = noise_seed(settings, "aggregate", server_round)
    return pack_parameters(noised(unpack_parameters(arrays), deviation, seed))


def longest_norms(norms: Sequence[float], steps: Sequence[int], ratio: float) -> list[float]:
    """Return above which 2-norm each update of a round is dropped.

    Parameters
    ----------
    norms : sequence of float
        2-norms of the round's updates, each the difference to the global parameters. Those of 0
        (COBYLA found nothing better) do not count towards the median.
    steps : sequence of int
        Optimizer steps that the server gave to each: more steps lead further.
    ratio : float
        Times the median norm that an update of the median number of steps may have.
    """
    moved = [norm for norm in norms if norm > 0]
    if not moved:
        return [0.0] * len(norms)
    usual = max(float(np.median(steps)), 1.0)
    return [ratio * float(np.median(moved)) * max(1.0, given / usual) for given in steps]


def clip_to_centre(
    updates: Sequence[Arrays], radius: float, least: float
) -> tuple[list[Parameters], list[float]]:
    """Move updates that lie far from the others towards these (centred clipping).

    The centre is the median of each coordinate. An update further from it than `radius` times the
    median distance moves along the line to the centre until it is as near. With equal weights f of
    n updates, whatever they hold, move the mean at most by f / n times that distance. No update
    moves where all are about as far from the centre.

    Parameters
    ----------
    updates : sequence of mapping
        Named arrays of each update, alike in names and shapes.
    radius : float
        Times the median distance.
    least : float
        A median distance below this counts as this: where most updates are equal, the others
        still count for something.

    Returns
    -------
    tuple
        The updates, and by what each distance was multiplied: 1 where it did not move.

    References
    ----------
    Karimireddy, He, Jaggi (2021), arXiv 2012.10333; the centre is another.
    """
    centre = {
        name: np.median([np.asarray(one[name], np.float64) for one in updates], axis=0)
        for name in updates[0]
    }
    away = [
        math.sqrt(sum(float(np.sum((one[k] - middle) ** 2)) for k, middle in centre.items()))
        for one in updates
    ]
    longest = radius * max(float(np.median(away)), least)
    shares = [min(1.0, longest / distance) if distance else 1.0 for distance in away]
    return [_moved(*pair, centre) for pair in zip(updates, shares, strict=True)], shares


def _moved(update: Arrays, share: float, centre: Arrays) -> Parameters:
    if share == 1.0:
        return dict(update)
    return {
        name: (middle + share * (update[name] - middle)).astype(update[name].dtype)
        for name, middle in centre.items()
    }
