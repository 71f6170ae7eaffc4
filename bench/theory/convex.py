"""A strongly convex federated problem whose every constant is known, for the convergence bench.

Sites hold rows of l2-regularised logistic regression: the loss of site k is the mean over its rows
of ``log(1 + exp(-y x.w))``, plus ``weight / 2 |w|^2``, and the federation's is the sites' mean
weighted by rows. What Li et al. (arXiv 1907.02189) need is computed from the rows: strong
convexity mu, smoothness L, the variances sigma_k^2, the gradients' bound G^2, the optimum, and how
far the sites' optima lie apart (Gamma).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sites:
    """The federation's rows.

    Attributes
    ----------
    signed : ndarray of float64, shape (N, most rows, d)
        Each row's features times its label, -1 or 1; zeros after a site's last row.
    rows : ndarray of int64, shape (N,)
        Rows of each site.
    weight : float
        Of the l2 term; it is mu, since the logistic loss alone is flat far out.
    """

    signed: Floats
    rows: Ints
    weight: float

    @property
    def shares(self) -> Floats:
        """Return p_k, the sites' shares of the rows."""
        return np.asarray(self.rows / self.rows.sum(), dtype=np.float64)

    def row_weights(self, shares: Floats) -> Floats:
        """Return what each row counts in the mean of the sites' losses by `shares`."""
        inside = np.arange(self.signed.shape[1]) < self.rows[:, None]
        return np.where(inside, (shares / self.rows)[:, None], 0.0)

    def loss(self, points: Floats, shares: Floats) -> Floats:
        """Return the loss at points (..., d): the sites' mean by `shares`, which add up to 1."""
        margins = np.einsum("knd,...d->...kn", self.signed, points)
        fit = np.einsum("...kn,kn->...", np.logaddexp(0.0, -margins), self.row_weights(shares))
        return np.asarray(fit + self.weight / 2 * np.sum(points**2, axis=-1))

    def gradient(self, point: Floats, shares: Floats) -> Floats:
        """Return the gradient (d,) at one point."""
        slopes = -expit(-(self.signed @ point)) * self.row_weights(shares)
        return np.asarray(np.einsum("kn,knd->d", slopes, self.signed) + self.weight * point)

    def hessian(self, point: Floats, shares: Floats) -> Floats:
        """Return the Hessian (d, d) at one point."""
        margins = self.signed @ point
        bends = expit(margins) * expit(-margins) * self.row_weights(shares)
        fit = np.einsum("kn,kni,knj->ij", bends, self.signed, self.signed)
        return np.asarray(fit + self.weight * np.eye(len(point)))

    def optimum(self, shares: Floats) -> Floats:
        """Return the minimiser (d,) by Newton's method, its gradient below 1e-13."""
        point = np.zeros(self.signed.shape[2])
        for _ in range(100):
            slope = self.gradient(point, shares)
            if np.linalg.norm(slope) < 1e-13:
                return point
            step = np.linalg.solve(self.hessian(point, shares), slope)
            size = 1.0  # halved until the loss falls, which far from the optimum it may not
            before = self.loss(point, shares)
            while size > 1e-3 and self.loss(point - size * step, shares) > before + 1e-15:
                size /= 2
            point = point - size * step
        raise RuntimeError(f"Newton's method ends at a gradient of {np.linalg.norm(slope):.1e}")

    def noise(self, point: Floats) -> tuple[Floats, Floats]:
        """Return each site's gradient (N, d) at a point, and its rows' covariance (N, d, d)."""
        slopes = -expit(-(self.signed @ point))[..., None] * self.signed
        mean = slopes.sum(axis=1) / self.rows[:, None]
        second = np.einsum("kni,knj->kij", slopes, slopes) / self.rows[:, None, None]
        return mean + self.weight * point, second - np.einsum("ki,kj->kij", mean, mean)


@dataclass(frozen=True)
class Constants:
    """What the theorem asks of a problem.

    Attributes
    ----------
    mu, smoothness : float
        Strong convexity of every site's loss, and L: the largest curvature of any.
    optimum : ndarray of float64, shape (d,)
        w*, by Newton's method.
    least : float
        F* = F(w*).
    apart : float
        Gamma = F* - sum p_k F_k*; 0 if the sites have one optimum.
    variance : ndarray of float64, shape (N,)
        sigma_k^2: a bound that holds everywhere, the mean squared norm of a site's rows.
    gradient : float
        G^2, a bound that holds wherever training from 0 can get.
    """

    mu: float
    smoothness: float
    optimum: Floats
    least: float
    apart: float
    variance: Floats
    gradient: float

    @property
    def condition(self) -> float:
        """Return kappa = L / mu."""
        return self.smoothness / self.mu

    def gamma(self, period: int) -> float:
        """Return gamma = max(8 L / mu, E)."""
        return max(8 * self.condition, float(period))


def constants_of(sites: Sites) -> Constants:
    """Compute a problem's constants from its rows.

    The logistic loss bends by at most a quarter of a row's square, so L is a quarter of the
    largest eigenvalue of a site's second moments, plus the l2 term. A row's gradient is at most
    its norm r plus ``weight |w|``; and from w = 0, with rates below ``1 / weight``, no step leaves
    ``|w| <= r / weight``. So G = 2 r. A theorem that asks for strong convexity and bounded
    gradients can only hold on such a ball.
    """
    shares, count = sites.shares, len(sites.rows)
    squares = np.sum(sites.signed**2, axis=2)
    moments = np.einsum("kni,knj->kij", sites.signed, sites.signed) / sites.rows[:, None, None]
    best = sites.optimum(shares)
    least = float(sites.loss(best, shares))
    own = [float(sites.loss(sites.optimum(one), one)) for one in np.eye(count)]
    return Constants(
        mu=sites.weight,
        smoothness=float(np.linalg.eigvalsh(moments).max() / 4 + sites.weight),
        optimum=best,
        least=least,
        apart=least - float(shares @ np.array(own)),
        variance=np.asarray(squares.sum(axis=1) / sites.rows),
        gradient=float(4 * squares.max()),
    )


def draw_sites(rows: list[int], seed: int, skew: float = 0.95, weight: float = 0.01) -> Sites:
    """Draw sites with label skew: in every other one `skew` of the rows are of the first class.

    Features are Gaussian round a mean of the class's and one of the site's, with a constant at
    the end, scaled so that the longest row has norm 1.
    """
    rng = np.random.default_rng(seed)
    width, count = 5, len(rows)
    of_class = rng.normal(size=width) * 0.5
    signed = np.zeros((count, max(rows), width + 1))
    for site, number in enumerate(rows):
        first = round((skew if site % 2 == 0 else 1 - skew) * number)
        labels = np.where(np.arange(number) < first, 1.0, -1.0)
        features = rng.normal(size=(number, width)) + labels[:, None] * of_class
        features += 0.5 * rng.normal(size=width)
        signed[site, :number] = labels[:, None] * np.column_stack([features, np.ones(number)])
    signed /= np.sqrt(np.sum(signed**2, axis=2).max())
    return Sites(signed, np.array(rows), weight)


def bound(
    known: Constants, shares: Floats, period: int, chosen: int | None, **met: Any
) -> dict[str, float]:
    """Evaluate the bound of Li et al., times (t + gamma).

    Parameters
    ----------
    known : Constants
        The problem's.
    shares : ndarray, shape (N,)
        p_k.
    period : int
        E, local steps a round.
    chosen : int or None
        K sites a round, drawn without replacement (their theorem 3); None: all (theorem 1).
    **met
        ``variance`` or ``gradient`` instead of the bounds that hold everywhere.

    Returns
    -------
    dict
        ``noise``, ``apart``, ``drift``: the three terms of B; ``sampling``: C; ``start``; and
        ``total``: kappa (2 (B + C) / mu + mu gamma / 2 |w_0 - w*|^2), with w_0 = 0.
    """
    variance = np.asarray(met.get("variance", known.variance))
    gradient, count = float(met.get("gradient", known.gradient)), len(shares)
    parts = {
        "noise": float(shares**2 @ variance),
        "apart": 6 * known.smoothness * known.apart,
        "drift": 8 * (period - 1) ** 2 * gradient,
        "sampling": 0.0,
    }
    if chosen is not None:
        parts["sampling"] = (count - chosen) / (count - 1) * 4 / chosen * period**2 * gradient
    start = known.mu * known.gamma(period) / 2 * float(known.optimum @ known.optimum)
    total = known.condition * (2 * sum(parts.values()) / known.mu + start)
    return {**parts, "start": start, "total": total}


def limit(sites: Sites, known: Constants, period: int, chosen: int | None) -> float:
    """Return what gap x (t + gamma) tends to under the theorem's rate, to first order.

    Near the optimum a step is linear: along an eigenvector of the Hessian with eigenvalue h, and
    noise of variance s, a rate of beta / (t + gamma) leaves ``beta^2 s / ((2 beta h - 1) (t +
    gamma))`` of squared distance, half of h times which is the gap. The noise is that of the rows
    drawn and, where sites are drawn, E times that of the sites' gradients; what the local steps
    drift is of second order.
    """
    gradients, covariance = sites.noise(known.optimum)
    if chosen is None:
        noise = np.einsum("k,kij->ij", sites.shares**2, covariance)
    else:  # for sites of equal size only
        count = len(sites.rows)
        between = np.cov(gradients.T, bias=True) * (count - chosen) / (chosen * (count - 1))
        noise = covariance.mean(axis=0) / chosen + period * between
    bends, axes = np.linalg.eigh(sites.hessian(known.optimum, sites.shares))
    spread = np.einsum("ia,ij,ja->a", axes, noise, axes)
    beta = 2 / known.mu
    return float(np.sum(bends / 2 * beta**2 * spread / (2 * beta * bends - 1)))


def expected_shares(rows: Ints, chosen: int) -> Floats:
    """Return what a site counts on average where the mean is by rows of those drawn."""
    found = np.zeros(len(rows))
    subsets = list(combinations(range(len(rows)), chosen))
    for subset in map(list, subsets):
        found[subset] += rows[subset] / rows[subset].sum()
    return found / len(subsets)
