"""How noisy a training's gradient estimates were, from what its own circuits measured; no torch.

A step estimates the gradient g of its rows' loss, with respect to the P angles, by some vector with
mean g and a covariance of trace V. The mean of S such estimates has a noise of V / S beside a
signal of |g|^2; their ratio, noise over signal, is what `Estimates.noise` returns. Which rows a
step drew is not in it: that is the same for every optimiser and backend.

* By shifts: ``V = sum_j var_j``, the shots' variance of each slope, and ``|g|^2`` is the mean
  squared length of the estimates less V.
* SPSA (Spall 1998): the estimate is ``s delta`` with random signs delta, so its squared length is
  ``P s^2``. With v the shots' variance of the slope s, ``|g|^2 = E s^2 - v`` and
  ``V = P E s^2 - |g|^2``: without shots the ratio is ``(P - 1) / S``, the price of two values a
  step instead of 2 P.
* By autograd nothing is estimated: 0. COBYLA has no gradient; each point that it tries says
  something of one direction, so it counts as SPSA without shots.

The shots' variance of a loss L is the delta method's, ``sum (dL/dz)^2 (1 - z^2) / shots``: a mean
of shots in [-1, 1] has at most that variance, and read-outs count as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Estimates:
    """Sums over the steps of one training.

    Attributes
    ----------
    steps : int
        Estimates so far.
    signal, spread : float
        Sums of unbiased estimates of ``|g|^2`` and of the trace V.
    """

    steps: int = 0
    signal: float = 0.0
    spread: float = 0.0

    def by_slope(self, slope: float, variance: float, angles: int) -> None:
        """Add an SPSA step: its slope, the shots' variance of that, and the number of angles."""
        signal = slope**2 - variance
        self.add(signal, angles * slope**2 - signal)

    def by_gradient(self, square: float, variance: float) -> None:
        """Add a gradient by shifts: its squared length, and the sum of its entries' variances."""
        self.add(square - variance, variance)

    def add(self, signal: float, spread: float) -> None:
        """Add a step's estimates of ``|g|^2`` and of the trace V."""
        self.steps, self.signal, self.spread = (
            self.steps + 1,
            self.signal + signal,
            self.spread + spread,
        )

    def noise(self) -> float:
        """Return noise over signal of the mean estimate, at least 0; infinite without a signal."""
        if self.spread <= 0:
            return 0.0
        return self.spread / (self.steps * self.signal) if self.signal > 0 else math.inf


def shot_variance(slopes: float, shots: int) -> float:
    """Return a loss's variance by its shots: ``slopes`` is the sum of ``(dL/dz)^2 (1 - z^2)``."""
    return slopes / shots if shots else 0.0


def undirected(angles: int, tried: int) -> float:
    """Return noise over signal of a search that tried so many points of P angles."""
    return max(0.0, (angles - 1) / max(1, tried))
