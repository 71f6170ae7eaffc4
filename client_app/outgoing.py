"""How a trained model leaves its site: clipped, noised and weighed, in this order.

Each step takes an `Outgoing` and returns another. What is still to be done with it needs Flower's
context, so the handler does that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from client_app.private_rows import site_deviation
from core.messages import Parameters
from core.settings.secure import shortens

if TYPE_CHECKING:
    from client_app.site import SiteCache


@dataclass(frozen=True)
class Outgoing:
    """A trained model on its way out of a site.

    Attributes
    ----------
    reference : dict of arrays
        The round's global parameters.
    parameters : dict of arrays
        The trained ones, as far as they have been changed; the same names and shapes.
    round : int
        The round, from 1.
    weight : float
        By what the site multiplies the weight of its rows; 1: as it is.
    threshold : int
        Fewest members whose sum is opened, under secure aggregation; 0: the update goes by itself.
    """

    reference: Parameters
    parameters: Parameters
    round: int
    weight: float = 1.0
    threshold: int = 0


def outgoing(cache: SiteCache, trained: Outgoing) -> Outgoing:
    """Take a trained model through all steps that the site's settings request.

    Parameters
    ----------
    cache : SiteCache
        The site.
    trained : Outgoing
        The model as training left it.
    """
    for step in STEPS:
        trained = step(cache, trained)
    return trained


def _noised(cache: SiteCache, model: Outgoing) -> Outgoing:
    """With privacy at the site clip the update and add its noise, or its part of the sum's."""
    privacy = cache.settings.privacy
    at_site = privacy.dp in ("local", "summed")
    if not at_site or privacy.unit == "row":  # rows have their noise since training
        return model
    from core.privacy import clipped, noise_seed, noised

    seed = noise_seed(cache.settings, "update", cache.client, model.round)
    update = clipped(model.parameters, model.reference, privacy.clip)
    deviation = site_deviation(cache.settings, model.threshold)
    return replace(model, parameters=noised(update, deviation, seed))


def _shortened(cache: SiteCache, model: Outgoing) -> Outgoing:
    """Under secure aggregation shorten the update to what the server would drop otherwise.

    Not where noise was made for another length: the server checks no length there either.
    """
    settings = cache.settings
    if not settings.privacy.secure_aggregation or not shortens(settings):
        return model
    from core.privacy import clipped

    bound = settings.aggregation.max_norm
    return replace(model, parameters=clipped(model.parameters, model.reference, bound))


STEPS = (_noised, _shortened)
"""In the order in which they are taken; what follows noise must not look at the rows again."""
