"""What differential privacy has cost: the accountant is Flower's, on Google's dp-accounting.

Renyi differential privacy (Mironov 2017) of Gaussian releases. Like `core.privacy` it needs Flower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.settings.derived import selection_size
from core.settings.schema import Settings


@dataclass(frozen=True)
class Releases:
    """How often a run's noised updates have left, at most.

    Attributes
    ----------
    count : int
        Rounds whose messages went out; by rows (`privacy.unit`) the optimiser steps in them.
    drawn : int
        Rounds of these whose clients were drawn at random, as many as the agent draws from all.
    """

    count: int = 0
    drawn: int = 0


def epsilon(multipliers: Mapping[float, int], delta: float) -> float:
    """Return what Gaussian releases have spent, by Renyi differential privacy.

    Without amplification: whom they are about is chosen, not drawn.

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


def epsilon_drawn(multiplier: float, sizes: Mapping[int, int], clients: int, delta: float) -> float:
    """Return what releases about clients drawn without replacement have spent.

    Wang, Balle and Kasiviswanathan (AISTATS 2019, theorem 9): replacing one client's update by any
    other. It is no bound for an observer who knows who was drawn.

    Parameters
    ----------
    multiplier : float
        Standard deviation over the distance of two updates: twice the clipping.
    sizes : mapping
        How many releases about each number of clients drawn; all of them: not drawn.
    clients : int
        Clients that they were drawn from.
    """
    import flwr.serverapp as flower

    relation = flower.NeighboringRelation.REPLACE_ONE
    method = flower.SamplingMethod.WITHOUT_REPLACEMENT
    accountant = flower.RdpAccountant(flower.PrivacyConfig(delta, clients, relation, method))
    for size, count in sizes.items():
        if count:
            accountant.compose(flower.GaussianPrivacyEvent(multiplier, size, clients), count)
    return accountant.get_epsilon(delta) if accountant.num_releases else 0.0


def update_multiplier(settings: Settings) -> float:
    """Return the noise on a release over what one client, or one row, can change it by.

    On a sum of updates (central, summed) a client's counts, or counts as no change. An update by
    itself (local), or a row in a sum of gradients, may be put in the place of another: both at the
    clipping, that is twice the clipping apart.
    """
    privacy = settings.privacy
    replaced = privacy.dp == "local" or privacy.unit == "row"
    return privacy.noise / 2 if replaced else privacy.noise


def moment_multipliers(noise: float) -> dict[float, int]:
    """Return the multipliers of the two releases of moments, where one row is replaced.

    Another row y in the place of x, neither longer than b: |x - y| <= 2 b in the sums, and
    |x x^T - y y^T|^2 = |x|^4 + |y|^4 - 2 (x . y)^2 <= 2 b^4 in the second moments.
    """
    return {noise / 2: 1, noise / math.sqrt(2): 1} if noise else {}


def composed(*parts: Mapping[float, int]) -> dict[float, int]:
    """Add up releases by their multipliers."""
    found: dict[float, int] = {}
    for part in parts:
        for multiplier, count in part.items():
            found[multiplier] = found.get(multiplier, 0) + count
    return found


def epsilon_of(settings: Settings, releases: Releases) -> float:
    """Return what `privacy.max_epsilon` limits: of a client's updates, or of a row in all.

    Of rows the noised moments count too, where a run sends them with noise.
    """
    privacy, multiplier = settings.privacy, update_multiplier(settings)
    if privacy.unit == "row":
        moments = moment_multipliers(privacy.moment_noise)
        return epsilon(composed({multiplier: releases.count}, moments), privacy.delta)
    plain = epsilon({multiplier: releases.count}, privacy.delta)
    if not releases.drawn:
        return plain
    clients = settings.run.clients
    size = selection_size(clients, settings.agent.fraction)
    sizes = {size: releases.drawn, clients: releases.count - releases.drawn}
    # Any other update in the place of one: twice the clipping. "No change" is one of them.
    return min(plain, epsilon_drawn(multiplier / 2, sizes, clients, privacy.delta))


def privacy_spent(settings: Settings, releases: Releases) -> dict[str, Any]:
    """Return what a run has spent, for its summary; empty without privacy settings.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    releases : Releases
        What has left the sites, each at most one update of a client.

    Returns
    -------
    dict
        ``updates``: epsilon of one client's updates against another client or outsider (central:
        they count, or count as no change; local: these or any others, against the server
        too), or of one row's part in them. ``moments``: epsilon of one row of a site, replaced by
        another of its class. ``rows``: of one row's part in both.
    """
    privacy, found = settings.privacy, dict[str, dict[str, Any]]()
    if privacy.dp != "none":
        found["updates"] = _updates_spent(settings, releases)
    if privacy.moment_noise:
        found["moments"] = {
            "noise": privacy.moment_noise,
            "clip": privacy.moment_clip,
            "epsilon": epsilon(moment_multipliers(privacy.moment_noise), privacy.delta),
        }
    if privacy.unit == "row" and privacy.moment_noise:
        found["rows"] = {"epsilon": epsilon_of(settings, releases)}
    return {
        name: {**one, "delta": privacy.delta, "seeded": privacy.seeded}
        for name, one in found.items()
    }


def _updates_spent(settings: Settings, releases: Releases) -> dict[str, Any]:
    privacy = settings.privacy
    plain = epsilon({update_multiplier(settings): releases.count}, privacy.delta)
    drawn = {}
    if releases.drawn:
        drawn = {"drawn": releases.drawn, "epsilon_if_known": plain}
        plain = epsilon_of(settings, releases)
    return {
        "dp": privacy.dp,
        "unit": privacy.unit,
        "noise": privacy.noise,
        "clip": privacy.clip,
        "releases": releases.count,
        "epsilon": plain,
        **drawn,
    }
