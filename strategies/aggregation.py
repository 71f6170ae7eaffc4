"""How updates become the next global parameters: checked first, then Flower's own strategies."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum, Strategy

from core import Settings
from core.flower_compat import noise_deviation, only_warnings
from core.messages import (
    ARRAYS,
    METRICS,
    WEIGHT_KEY,
    Parameters,
    pack_parameters,
    unpack_parameters,
)
from core.privacy import clipped, noise_seed, noised
from strategies.robust import clip_to_centre

Arrays = Mapping[str, npt.NDArray[Any]]

UNIFORM_KEY = "one"
"""Metric that is 1 in every reply: weighting by it is the paper's plain mean."""


def weigh(replies: Sequence[Message], rows: Sequence[int]) -> None:
    """Write into training replies what they weigh: their rows, and 1 for the plain mean."""
    for reply, count in zip(replies, rows, strict=True):
        metrics = reply.content.metric_records[METRICS]
        metrics[WEIGHT_KEY], metrics[UNIFORM_KEY] = count, 1


def update_norm(update: Arrays, reference: Arrays) -> float:
    """Return the 2-norm of the difference of two parameter sets, all arrays together."""
    squares = [
        float(np.sum((np.asarray(update[k], np.float64) - np.asarray(reference[k])) ** 2))
        for k in reference
    ]
    return float(np.sqrt(sum(squares)))


def check_update(update: Arrays, reference: Arrays, max_norm: float) -> str:
    """Say why an update may not be aggregated, or return an empty string.

    Parameters
    ----------
    update : mapping
        Arrays that a client sent.
    reference : mapping
        The round's global arrays: names and shapes are a contract.
    max_norm : float
        Bound on the 2-norm of the difference.

    Returns
    -------
    str
        The first thing that is wrong with it: names, shape, kind, finite, norm.
    """
    if set(update) != set(reference):
        return f"arrays {sorted(update)} instead of {sorted(reference)}"
    for name, array in reference.items():
        got = np.asarray(update[name])
        if got.shape != array.shape:
            return f"{name} has shape {got.shape} instead of {array.shape}"
        if got.dtype.kind != "f":
            return f"{name} has dtype {got.dtype} instead of {array.dtype}"
        if not np.isfinite(got).all():
            return f"{name} is not finite"
    norm = update_norm(update, reference)
    return f"norm {norm:.3g} of the update is above {max_norm:g}" if norm > max_norm else ""


def longest_update(settings: Settings) -> float:
    """Return the 2-norm above which an update is dropped.

    None is under central privacy, where each is clipped: to drop one for its length would change
    by how many the sum is divided, and the noise is not made for that.
    """
    return math.inf if settings.privacy.dp == "central" else settings.aggregation.max_norm


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


def aggregate(
    settings: Settings,
    server_round: int,
    replies: Sequence[Message],
    reference: Arrays | None = None,
    *,
    quiet: bool = False,
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Aggregate checked replies, and leave them as they are.

    Updates far from the others are moved towards them first (`clip_to_centre`). With central
    privacy each update is clipped instead, and noise is added to their mean.

    Parameters
    ----------
    settings : Settings
        The rule.
    server_round : int
        The round.
    replies : sequence of Message
        What is aggregated. Flower's median and trimmed mean take the arrays out of the messages
        that they are given, so they are given copies.
    reference : mapping, optional
        The round's global arrays, from which updates are measured.
    quiet : bool
        Whether Flower's line for each aggregation is kept out of the log.

    Raises
    ------
    ValueError
        If there is central privacy and no reference: nothing goes out without its noise.
    """
    central = settings.privacy.dp == "central"
    if central and reference is None:
        raise ValueError("privacy.dp = 'central' without the round's global arrays")
    aggregator = build_aggregator(settings, len(replies))
    copies = [_copied(reply) for reply in replies]
    if central and reference is not None:
        _clip(copies, reference, settings.privacy.clip)
    elif not central:
        for copied, update in zip(copies, centred(settings, replies)[0], strict=True):
            copied.content[ARRAYS] = pack_parameters(update)
    with only_warnings() if quiet else nullcontext():
        arrays, metrics = aggregator.aggregate_train(server_round, copies)
    if central and arrays is not None:
        arrays = _noised(arrays, settings, server_round, len(copies))
    return arrays, metrics


def centred(settings: Settings, replies: Sequence[Message]) -> tuple[list[Parameters], list[float]]:
    """Return a round's updates as they count, and by what each was brought nearer to the others.

    Under central privacy, where `privacy.clip` bounds them, none is moved.
    """
    updates = [unpack_parameters(reply.content.array_records[ARRAYS]) for reply in replies]
    if settings.privacy.dp == "central":
        return updates, [1.0] * len(updates)
    least = settings.train.learning_rate
    return clip_to_centre(updates, settings.aggregation.clip_radius, least)


def _clip(replies: Sequence[Message], reference: Arrays, bound: float) -> None:
    for reply in replies:
        update = unpack_parameters(reply.content.array_records[ARRAYS])
        reply.content[ARRAYS] = pack_parameters(clipped(update, reference, bound))


def _noised(
    arrays: ArrayRecord, settings: Settings, server_round: int, updates: int
) -> ArrayRecord:
    """Add noise to a mean of clipped updates, as for their sum (McMahan 2018)."""
    privacy = settings.privacy
    deviation = noise_deviation(privacy.noise, privacy.clip, updates)
    seed = noise_seed(settings, "aggregate", server_round)
    return pack_parameters(noised(unpack_parameters(arrays), deviation, seed))


def _copied(reply: Message) -> Message:
    """Return a message with array records of its own; the arrays themselves are shared."""
    content = RecordDict(dict(reply.content))
    for name, record in reply.content.array_records.items():
        content[name] = ArrayRecord(dict(record))
    fresh = copy.copy(reply)
    fresh.content = content
    return fresh
