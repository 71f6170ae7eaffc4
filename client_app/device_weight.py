"""What a site's update is worth beside one from an exact simulator: a factor of its rows; pure.

Let d be the update that a site's rows ask for. A device whose circuits succeed with probability F
returns about F d: expectations shrink by F where noise is close to depolarising, and slopes with
them. Its estimates add noise of energy ``nu |d|^2`` (`quantum.training.estimates`: from shots, and
from optimisers that measure a slope in one direction only). So update k is ``F_k d + e_k``, and
e_k has, besides, what differs between sites on any backend: their rows. Of that ``tau^2 / n_k`` is
taken, n_k the site's rows, with tau^2 such that it is as large as the update itself.

Of weighted means of such updates the one of the highest signal-to-noise ratio weighs each by signal
over variance (the matched filter; for F = 1 inverse-variance weighting, Aitken 1935):

    w_k  ~  F_k / Var(e_k)  ~  n_k F_k / (1 + nu_k)

So the factor is ``F / (1 + nu)``: 1 on the exact simulator by autograd, where the weights are
FedAvg's rows. It is at most 1, so a site that lies about its device gets what its rows weigh
anyway, which the server caps; and at least `LEAST`, so that no site's rows are silenced.
"""

from __future__ import annotations

import math

from core.messages import LEAST_WEIGHT

LEAST = LEAST_WEIGHT
"""The smallest factor: twenty such sites weigh as one exact one of as many rows."""


def device_weight(error: float, noise: float) -> float:
    """Return the factor by which a site's rows count.

    Parameters
    ----------
    error : float
        Estimated probability that some gate or read-out of one circuit fails, 1 - F, from the
        calibration of the device.
    noise : float
        Noise over signal nu of the site's gradient estimates, at least 0; infinite: no signal.

    Returns
    -------
    float
        ``F / (1 + nu)``, from `LEAST` to 1.
    """
    worth = (1.0 - error) / (1.0 + noise) if math.isfinite(noise) else 0.0
    return min(1.0, max(LEAST, worth))
