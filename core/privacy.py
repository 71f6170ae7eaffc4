"""Differential privacy through Flower's own parts: clipping, noise, and the accountant.

Like `core.messages` a door of its own, since it needs Flower.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from core.flower_compat import add_noise_in_place, clip_in_place, norm
from core.messages import Parameters
from core.seeds import derive_seed
from core.settings.schema import Settings


def clipped(
    update: Mapping[str, npt.NDArray[Any]], reference: Mapping[str, npt.NDArray[Any]], bound: float
) -> Parameters:
    """Return parameters whose difference to the reference has at most a 2-norm.

    Parameters
    ----------
    update, reference : mapping of arrays
        What a client trained, and what it began with; the same names and shapes.
    bound : float
        Longest difference, over all arrays together.
    """
    names = sorted(reference)
    change = [np.asarray(update[k], np.float64) - reference[k] for k in names]
    if norm(change) > bound:  # Flower divides by the norm, which may be 0
        clip_in_place(change, bound)
    moved = zip(names, change, strict=True)
    return {k: (reference[k] + part).astype(reference[k].dtype) for k, part in moved}


def noised(
    parameters: Mapping[str, npt.NDArray[Any]], deviation: float, seed: int | None
) -> Parameters:
    """Return parameters with Gaussian noise on every number.

    Parameters
    ----------
    parameters : mapping of arrays
        Any shapes.
    deviation : float
        The noise's standard deviation.
    seed : int or None
        Of the noise; None: from the system, so that it cannot be drawn again.
    """
    names = sorted(parameters)
    arrays = [np.array(parameters[name], np.float64) for name in names]
    with _drawing(seed):
        add_noise_in_place(arrays, deviation)
    return {k: a.astype(parameters[k].dtype) for k, a in zip(names, arrays, strict=True)}


@contextmanager
def _drawing(seed: int | None) -> Iterator[None]:
    """Let Flower, which draws from numpy's global generator, draw from one of our own."""
    words = np.random.SeedSequence(secrets.randbits(256) if seed is None else seed)
    before = np.random.get_state()
    np.random.seed(words.generate_state(16))
    try:
        yield
    finally:
        np.random.set_state(before)


def noise_seed(settings: Settings, *what: str | int) -> int | None:
    """Return the seed of some noise, or None where it must stay unknown."""
    seeded = settings.privacy.seeded
    return derive_seed(settings.run.seed, "privacy", *what) if seeded else None


def epsilon(multipliers: Mapping[float, int], delta: float) -> float:
    """Return what Gaussian releases have spent, by Renyi differential privacy.

    Without amplification: who takes part is chosen, not drawn.

    Parameters
    ----------
    multipliers : mapping
        How many releases of each noise multiplier: standard deviation over 2-norm sensitivity.

    Returns
    -------
    float
        Epsilon (Mironov 2017, through Flower's `RdpAccountant`); 0 without a release.
    """
    import flwr.serverapp as flower

    relation = flower.NeighboringRelation.ADD_OR_REMOVE_ONE
    config = flower.PrivacyConfig(delta, 1, relation, flower.SamplingMethod.NO_AMPLIFICATION)
    accountant = flower.RdpAccountant(config)
    for multiplier, count in multipliers.items():
        if count:
            accountant.compose(flower.GaussianPrivacyEvent(multiplier, 1, 1), count)
    return accountant.get_epsilon(delta) if accountant.num_releases else 0.0


def privacy_spent(settings: Settings, releases: int) -> dict[str, Any]:
    """Return what a run has spent, for its summary; empty without privacy settings.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    releases : int
        Rounds whose instructions were sent, each at most one update of a client.

    Returns
    -------
    dict
        ``updates``: epsilon of one client's updates against another client or outsider (central:
        they count, or count as no change; local: these or any others, against the server
        too). ``moments``: epsilon of one row of a site, replaced by another of its class.
    """
    privacy, found = settings.privacy, {}
    if privacy.dp != "none":
        # Locally any update may stand in another's place: twice the clipping apart.
        multiplier = privacy.noise if privacy.dp == "central" else privacy.noise / 2
        found["updates"] = {
            "dp": privacy.dp,
            "noise": privacy.noise,
            "clip": privacy.clip,
            "releases": releases,
            "epsilon": epsilon({multiplier: releases}, privacy.delta),
            "delta": privacy.delta,
        }
    if privacy.moment_noise:
        # Another row y in the place of x, neither longer than b: |x - y| <= 2 b in the sums, and
        # |x x^T - y y^T|^2 = |x|^4 + |y|^4 - 2 (x . y)^2 <= 2 b^4 in the second moments.
        multipliers = {privacy.moment_noise / 2: 1, privacy.moment_noise / math.sqrt(2): 1}
        found["moments"] = {
            "noise": privacy.moment_noise,
            "clip": privacy.moment_clip,
            "epsilon": epsilon(multipliers, privacy.delta),
            "delta": privacy.delta,
        }
    for one in found.values():
        one["seeded"] = privacy.seeded
    return found
