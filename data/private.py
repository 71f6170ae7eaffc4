"""Moments that tell less: rows clipped, noise added, and what the noise broke mended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data.moments import Matrix, Moments

LEAST = 1e-3
"""Smallest variance within classes that noise may leave, of the mean variance."""


def clip_rows(features: npt.ArrayLike, bound: float) -> Matrix:
    """Shorten rows to at most a 2-norm; (rows, d) in and out, float64."""
    x = np.asarray(features, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x * np.minimum(1.0, bound / np.maximum(norms, np.finfo(float).tiny)))


def noisy(moments: Moments, multiplier: float, bound: float, rng: np.random.Generator) -> Moments:
    """Add Gaussian noise to sums and second moments of rows of at most a 2-norm.

    Parameters
    ----------
    moments : Moments
        Of clipped rows. Their counts, which a site tells anyhow, stay as they are.
    multiplier : float
        Noise multiplier: the deviation is that times the longest row (sums) or its square
        (second moments). Another row in the place of one changes the sums by twice the longest
        row at most, and the second moments, each counted once, by sqrt 2 times its square.
    bound : float
        Longest row.
    rng : numpy.random.Generator
        Draws the noise.
    """
    sums = moments.sums + rng.normal(0.0, multiplier * bound, moments.sums.shape)
    drawn = np.triu(rng.normal(0.0, multiplier * bound**2, moments.second.shape))
    held = (moments.count > 0)[:, None]
    return Moments(
        moments.count,
        np.where(held, sums, 0.0),
        moments.second + drawn + np.triu(drawn, 1).T,
    )


def mended(moments: Moments) -> Moments:
    """Return moments whose covariance within classes is one again: noise may leave it indefinite.

    Parameters
    ----------
    moments : Moments
        Noisy ones, summed over sites.
    """
    means = moments.sums / np.maximum(moments.count, 1.0)[:, None]
    explained = means.T @ (moments.count[:, None] * means)
    values, vectors = np.linalg.eigh(moments.second - explained)
    floor = LEAST * max(float(np.mean(np.maximum(values, 0.0))), np.finfo(float).tiny)
    within = (vectors * np.maximum(values, floor)) @ vectors.T
    return Moments(moments.count, moments.sums, within + explained)


def common(labels: npt.ArrayLike, classes: int, least: int) -> npt.NDArray[np.bool_]:
    """Mark the rows whose class has enough of them: moments of few rows would say much of each.

    Parameters
    ----------
    labels : array of int, shape (rows,)
        Class of each row.
    classes : int
        Number of classes.
    least : int
        Fewest rows of a class (``privacy.min_rows``).
    """
    members = np.asarray(labels, dtype=np.int64)
    return np.asarray((np.bincount(members, minlength=classes) >= least)[members])


def too_large(parts: Sequence[Moments], multiplier: float, bound: float) -> dict[int, str]:
    """Find noisy moments above what rows of at most a 2-norm and their noise can make.

    Parameters
    ----------
    parts : sequence of Moments
        Of each site.
    multiplier, bound : float
        Noise multiplier and longest row, as in `noisy`.

    Returns
    -------
    dict
        The reason, by position. Five deviations are given to the noise.
    """
    found = {}
    for place, one in enumerate(parts):
        features = len(one.second)
        noise = multiplier * bound * (np.sqrt(features) + 5)
        lengths = np.linalg.norm(one.sums, axis=1)
        largest = float(np.linalg.norm(one.second, 2)) if features else 0.0
        most = one.rows * bound**2 + 2 * multiplier * bound**2 * (np.sqrt(features) + 5)
        if (lengths > one.count * bound + noise).any() or largest > most:
            found[place] = "they are above what its rows and the noise can make"
    return found
