"""Moments that tell less: rows clipped, noise added, and what the noise broke mended."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.moments import Matrix, Moments
from federation import DataError, explain

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


def refuse_few(count: npt.ArrayLike, least: int) -> None:
    """Refuse to tell moments of few rows: each would say much of one.

    Parameters
    ----------
    count : array of int, shape (C,)
        Training rows of each class.
    least : int
        Fewest rows of a class that is not empty.

    Raises
    ------
    DataError
        If a class has fewer.
    """
    few = [int(rows) for rows in np.asarray(count) if 0 < rows < least]
    if few:
        raise DataError(
            explain(
                f"a class with {min(few)} training rows",
                f"none, or at least privacy.min_rows = {least}",
                "add rows, leave that class out at this site, or lower privacy.min_rows",
            )
        )
