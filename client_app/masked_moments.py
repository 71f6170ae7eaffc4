"""A site's moments under secure aggregation: masked, so that the server has their sum alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Context

from client_app.masking import Masking, check_masks, enter_group
from client_app.preparation import candidate_moments, site_length
from client_app.privacy_account import charge_moments
from core import SettingsError, UserError
from core.secure_messages import MOMENTS_ROUND, MomentsIns, moments_digest
from core.summed import Vector
from core.summed_moments import moment_vector

if TYPE_CHECKING:
    from client_app.site import SiteCache


def masked_moments(cache: SiteCache, context: Context, instruction: MomentsIns) -> bytes:
    """Return the site's moments, weighted by its rows and masked.

    Raises
    ------
    UserError
        If it is to send others than it may, has no keys, or its account does not pay for them.
    SecAggError
        If the group is not one that it may add its moments to.
    """
    kinds = instruction.kinds
    check_masks(cache, "a sum of moments", masks=True)
    _check_kinds(cache, kinds)
    work, run = moments_digest(kinds), instruction.run
    masking = enter_group(cache, context, run, MOMENTS_ROUND, instruction.group, work)
    vector = weighted_moments(cache, kinds, masking)
    charge_moments(cache)
    return masking.hide(context, vector)


def weighted_moments(cache: SiteCache, kinds: Sequence[str], masking: Masking) -> Vector:
    """Return the site's weight times the means over its rows that moments are.

    Raises
    ------
    UserError
        If a number is beyond what masks can hide.
    """
    from core.secagg import RANGE

    arrays = candidate_moments(cache, kinds, site_length(cache, kinds))
    vector = moment_vector(arrays, masking.weight / max(1, len(cache.site.train)))
    if (largest := float(np.abs(vector).max(initial=0.0))) > RANGE:
        raise UserError(
            f"the weighted moments of {', '.join(kinds)} hold a number of {largest:.4g}",
            f"at most {RANGE:,.0f}: what masks can hide",
            "make these features smaller, for instance by one factor at all sites",
        )
    return vector


def _check_kinds(cache: SiteCache, kinds: Sequence[str]) -> None:
    """Refuse kinds of features that the run does not choose from, or that fit no such site."""
    from data import candidate_kinds, unfit

    first, *others = candidate_kinds(cache.info.kind, cache.settings)
    length, rows = site_length(cache, [first, *others]), len(cache.site.train)
    allowed = [k for k in others if not unfit(k, cache.settings, length, rows)]
    if kinds[:1] != [first] or not set(kinds[1:]) <= set(allowed) or len(set(kinds)) < len(kinds):
        raise SettingsError(
            f"moments of {', '.join(kinds)} are requested",
            f"{', '.join([first, *allowed])}, the first one always",
            "give server and nodes the same features and version of the app",
        )
