"""Which clients count: the paper's distance selection, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from core import selection_size


def distances(losses: Mapping[int, float], server_loss: float) -> dict[int, float]:
    """Return d_k = |L_k - L_server| of every client, nats."""
    return {client: abs(loss - server_loss) for client, loss in losses.items()}


def closest(gaps: Mapping[int, float], fraction: float) -> tuple[int, ...]:
    """Keep the share of clients with the smallest distance (arXiv 2505.18656, selection).

    Parameters
    ----------
    gaps : mapping
        d_k by client; an unknown one may be NaN and comes last.
    fraction : float
        Share kept, in (0, 1]; rounded up, at least one client.

    Returns
    -------
    tuple of int
        The kept clients in ascending order; ties go to the lower index.

    Raises
    ------
    ValueError
        If there is no client.
    """
    if not gaps:
        raise ValueError("no client to select from")
    order = sorted(gaps, key=lambda k: (math.isnan(gaps[k]), gaps[k], k))
    return tuple(sorted(order[: selection_size(len(gaps), fraction)]))
