"""Federated averaging on the convex problem, many repetitions at once, and what it shows.

Local steps are plain SGD on one row, as in Li et al.; rates are those of `train.schedule =
inverse-time`. All repetitions move as one array. Means of the sites' models are taken by numpy;
at every point that is looked at, the same models also go through the aggregation that
`LlmQfl` uses, and the two have to agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from bench.theory.convex import Constants, Floats, Ints, Sites
from quantum.training.schedule import inverse_time
from strategies.aggregations.weighted import weighted

Rate = Literal["theorem", "own", "constant"]


@dataclass(frozen=True)
class Plan:
    """How a federation trains.

    Attributes
    ----------
    period : int
        E, local steps a round.
    chosen : int or None
        K sites drawn again each round, without replacement; None: all.
    rate : str
        ``theorem``: 2 / (mu (t + gamma)), t the federation's local steps so far; ``own``: t a
        site's own, as a client of ours counts; ``constant``: the theorem's first rate, always.
    slower : float
        The constant rate is divided by it.
    """

    period: int
    chosen: int | None = None
    rate: Rate = "theorem"
    slower: float = 1.0


@dataclass(frozen=True)
class Course:
    """What a plan did.

    Attributes
    ----------
    steps : ndarray of int64, shape (C,)
        t: local steps at the rounds' ends that were looked at, from 0.
    gaps : ndarray of float64, shape (repetitions, C)
        F(w_t) - F*.
    gradient : float
        Largest mean squared norm of a row's gradient met at a site; the least that G^2 can be.
    variance : ndarray of float64, shape (N,)
        Largest variance of a row's gradient met at each site's model.
    deviation : float
        Largest difference between numpy's means and the aggregation's.
    """

    steps: Ints
    gaps: Floats
    gradient: float
    variance: Floats
    deviation: float

    @property
    def mean(self) -> Floats:
        """Return the gap's mean over repetitions, (C,)."""
        return np.asarray(self.gaps.mean(axis=0))


def looked_at(horizon: int, period: int, per_decade: int = 20) -> Ints:
    """Return rounds after which to look: evenly on a logarithmic scale, the last one too."""
    last = horizon // period
    decades = np.log10(max(last, 1))
    marks = np.logspace(0, decades, int(per_decade * decades) + 2)
    return np.unique(np.append(np.round(marks), last).astype(np.int64))


def rates_of(plan: Plan, known: Constants, horizon: int) -> Floats:
    """Return the rate of each step."""
    first = inverse_time(0, known.mu, known.smoothness, plan.period)
    if plan.rate == "constant":
        return np.full(horizon, first / plan.slower)
    steps = range(horizon)
    return np.array([inverse_time(t, known.mu, known.smoothness, plan.period) for t in steps])


def train(
    sites: Sites,
    known: Constants,
    plan: Plan,
    horizon: int,
    repetitions: int,
    seed: int,
    start: Floats | None = None,
) -> Course:
    """Run federated averaging.

    Parameters
    ----------
    sites, known : Sites, Constants
        The problem.
    plan : Plan
        Local steps, participation, rate.
    horizon : int
        Local steps in all.
    repetitions : int
        Independent ones.
    seed : int
        Of the rows and sites drawn.
    start : ndarray of float64, shape (d,), or None
        w_0; None: 0.
    """
    rng = np.random.default_rng(seed)
    count, most, width = sites.signed.shape
    flat, rates = sites.signed.reshape(-1, width), rates_of(plan, known, horizon)
    everybody = np.broadcast_to(np.arange(count), (repetitions, count))
    taken = np.zeros((repetitions, count), dtype=np.int64)
    first = np.zeros(width) if start is None else start
    shared = np.tile(first, (repetitions, 1))
    steps, gaps = [0], [sites.loss(shared, sites.shares) - known.least]
    met = _Met(sites)
    met.look(np.tile(first, (1, count, 1)), np.arange(count)[None])
    marks = set(looked_at(horizon, plan.period).tolist())
    for number in range(1, horizon // plan.period + 1):
        drawn = everybody
        if plan.chosen is not None:
            drawn = rng.random((repetitions, count)).argsort(axis=1)[:, : plan.chosen]
        rows, own = sites.rows[drawn], np.take_along_axis(taken, drawn, axis=1)
        done = own if plan.rate == "own" else np.full_like(own, (number - 1) * plan.period)
        uniform = rng.random((plan.period, *drawn.shape))
        local = np.repeat(shared[:, None], drawn.shape[1], axis=1)
        _local_steps(local, flat, drawn * most, uniform * rows, rates, done, sites.weight)
        np.put_along_axis(taken, drawn, own + plan.period, axis=1)
        weights = rows / rows.sum(axis=1, keepdims=True)
        shared = np.einsum("rk,rkd->rd", weights, local)
        if number in marks:
            met.compare(shared, local, rows)
            met.look(local, drawn)
            steps.append(number * plan.period)
            gaps.append(sites.loss(shared, sites.shares) - known.least)
    found = np.stack(gaps, axis=1)
    return Course(np.array(steps), found, met.gradient, met.variance, met.deviation)


def _local_steps(
    local: Floats,
    flat: Floats,
    first: Ints,
    drawn: Floats,
    rates: Floats,
    done: Ints,
    weight: float,
) -> None:
    """Let R x K sites take a round's steps, a row each, in place.

    Parameters
    ----------
    local : ndarray, shape (R, K, d)
        Their parameters.
    flat : ndarray, shape (rows of all sites, d)
        Rows times labels.
    first : ndarray of int64, shape (R, K)
        Where each site's rows begin.
    drawn : ndarray, shape (steps, R, K)
        Places of the rows in their sites, to be rounded down.
    rates : ndarray, shape (T,)
        Rates by step.
    done : ndarray of int64, shape (R, K)
        Steps before this round, by which the rate goes.
    weight : float
        Of the l2 term.
    """
    for step, rows in enumerate(drawn):
        z = flat.take(first + rows.astype(np.int64), axis=0)
        pull = expit(-np.einsum("rkd,rkd->rk", z, local))[..., None] * z
        local += rates[done + step][..., None] * (pull - weight * local)


class _Met:
    """The largest gradients and variances on the way, and the aggregation's deviation."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        self.squares = np.sum(sites.signed**2, axis=2)
        self.gradient, self.deviation = 0.0, 0.0
        self.variance = np.zeros(len(sites.rows))

    def look(self, local: Floats, drawn: Ints) -> None:
        """Measure gradients at local models (R, K, d) of the sites `drawn` (R, K)."""
        signed, weight = self.sites.signed, self.sites.weight
        for site, rows in enumerate(self.sites.rows):
            at = local[drawn == site]
            slopes = -expit(-(at @ signed[site, :rows].T))
            mean = slopes @ signed[site, :rows] / rows
            spread = slopes**2 @ self.squares[site, :rows] / rows - np.sum(mean**2, axis=1)
            whole = spread + np.sum((mean + weight * at) ** 2, axis=1)
            self.gradient = max(self.gradient, float(whole.max(initial=0.0)))
            self.variance[site] = max(self.variance[site], spread.max(initial=0.0))

    def compare(self, shared: Floats, local: Floats, rows: Ints) -> None:
        """Take the mean once more as `LlmQfl` does; where rows differ by repetition, of one."""
        alike = bool((rows == rows[0]).all())
        models = local.swapaxes(0, 1) if alike else local[0]
        mean = aggregated(models, rows[0])
        off = float(np.abs(mean - (shared if alike else shared[0])).max())
        if off > 1e-12:
            raise RuntimeError(f"the aggregation is off by {off:.1e} from the mean by rows")
        self.deviation = max(self.deviation, off)


def aggregated(models: Floats, rows: Ints) -> Floats:
    """Average models (K, ...) by rows with the run's own aggregation (`weighted`)."""
    updates = [{"w": model} for model in models]
    return weighted(updates, rows.astype(np.float64), {})["w"]


@dataclass(frozen=True)
class Slope:
    """A slope on doubly logarithmic axes, with its 95 % interval by resampling repetitions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the figures as a cell."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def slope(course: Course, gamma: float, decades: float, resamples: int = 2000) -> Slope:
    """Fit log(mean gap) = a + b log(t + gamma) over the last decades of t + gamma."""
    shifted = course.steps + gamma
    late = shifted >= shifted[-1] / 10**decades
    if late.sum() < 3:
        raise ValueError(f"{late.sum()} points in the last {decades:g} decades; at least 3")
    x, gaps = np.log(shifted[late]), course.gaps[:, late]
    away = x - x.mean()
    fit = away / (away @ away)
    count = len(gaps)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    low, high = np.quantile(np.log(drawn @ gaps) @ fit, (0.025, 0.975))
    return Slope(float(np.log(gaps.mean(axis=0)) @ fit), float(low), float(high))
