"""Moments of features per class, all that a client reports of its rows; with noise, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core import DataError

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over rows, from which class means and covariances follow; C classes, d features.

    Attributes
    ----------
    count : ndarray of float64, shape (C,)
        Rows per class.
    sums : ndarray of float64, shape (C, d)
        Sum of the features per class.
    second : ndarray of float64, shape (d, d)
        Sum of the outer products x x^T over all rows.

    Raises
    ------
    DataError
        If shapes disagree, a number is not finite or a count is negative.
    """

    count: Matrix
    sums: Matrix
    second: Matrix

    def __post_init__(self) -> None:
        """Check the shapes and numbers: moments come over the network."""
        classes, features = self.count.shape[:1], self.second.shape[:1]
        fits = (
            self.count.ndim == 1
            and self.second.shape == features * 2
            and self.sums.shape == classes + features
        )
        if not fits:
            raise DataError(
                f"moments of shapes {self.count.shape}, {self.sums.shape}, {self.second.shape}",
                "(C,), (C, d), (d, d)",
                "use the same data and feature settings on every node",
            )
        finite = all(np.isfinite(part).all() for part in (self.count, self.sums, self.second))
        if not finite or (self.count < 0).any():
            raise DataError(
                "moments with an infinite or missing number, or a negative count",
                "finite sums over rows",
                "check the features of that node",
            )

    @property
    def rows(self) -> float:
        """Rows in all."""
        return float(self.count.sum())

    def scaled(self, share: float) -> Moments:
        """Return the moments as of fewer rows, by a factor: means and covariances stay."""
        return Moments(share * self.count, share * self.sums, share * self.second)

    def moved(self, centre: npt.ArrayLike) -> Moments:
        """Return the moments of the rows with a constant (d,) added to each of them."""
        c, total = np.asarray(centre, dtype=np.float64), self.sums.sum(axis=0)
        crossed = np.outer(c, total)
        second = self.second + crossed + crossed.T + self.rows * np.outer(c, c)
        return Moments(self.count, self.sums + np.outer(self.count, c), second)

    @property
    def mean(self) -> Matrix:
        """Mean over all rows, shape (d,)."""
        return np.asarray(self.sums.sum(axis=0) / self.rows)

    def total_covariance(self) -> Matrix:
        """Covariance of all rows about their mean (divided by rows), shape (d, d)."""
        return self.second / self.rows - np.outer(self.mean, self.mean)

    def between_covariance(self) -> Matrix:
        """Covariance of the class means, weighted by rows, shape (d, d)."""
        held = self.count > 0
        apart = self.sums[held] / self.count[held, None] - self.mean
        return np.asarray((apart * self.count[held, None]).T @ apart / self.rows)

    def within_covariance(self) -> Matrix:
        """Covariance of the rows about their class means (divided by rows), shape (d, d)."""
        return self.total_covariance() - self.between_covariance()


def moments_of(features: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> Moments:
    """Sum up rows, in double precision.

    Parameters
    ----------
    features : array, shape (rows, d)
        Features of the training rows.
    labels : array of int, shape (rows,)
        Class of each row, below `classes`.
    classes : int
        Number of classes C.

    Returns
    -------
    Moments
        Count (C,), sums (C, d), second moment (d, d).
    """
    x = np.asarray(features, dtype=np.float64)
    members = np.asarray(labels)[:, None] == np.arange(classes)
    indicator = members.astype(np.float64)
    return Moments(indicator.sum(axis=0), indicator.T @ x, x.T @ x)


def check_alike(parts: Sequence[Moments]) -> None:
    """Refuse no moments, and those of different classes or features (`DataError`)."""
    shapes = sorted({part.sums.shape for part in parts})
    if len(shapes) != 1:
        given = " and ".join(f"{c} classes x {d} features" for c, d in shapes) or "no moments"
        raise DataError(
            f"sites sent {given}",
            "the same classes and features of every site",
            "use the same data.labels, features and llm.model on every node",
        )


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Add up the moments of several sites: those of the pooled rows.

    Raises
    ------
    DataError
        If there are none, or they are of different classes or features.
    """
    check_alike(parts)
    first, *others = parts
    count, sums, second = (np.array(one) for one in (first.count, first.sums, first.second))
    for part in others:  # one after the other: thousands of sites are not stacked
        count, sums, second = count + part.count, sums + part.sums, second + part.second
    return Moments(count, sums, second)


LEAST_VARIANCE = 1e-3
"""Smallest variance within classes that noise may leave, of the mean variance."""


def clip_rows(features: npt.ArrayLike, bound: float) -> Matrix:
    """Shorten rows to at most a 2-norm; (rows, d) in and out, float64."""
    x = np.asarray(features, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x * np.minimum(1.0, bound / np.maximum(norms, np.finfo(float).tiny)))


def noisy_moments(
    moments: Moments, multiplier: float, bound: float, rng: np.random.Generator
) -> Moments:
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


def repaired_moments(moments: Moments) -> Moments:
    """Return moments whose covariance within classes is one again: noise may leave it indefinite.

    Parameters
    ----------
    moments : Moments
        Noisy ones, summed over sites.
    """
    means = moments.sums / np.maximum(moments.count, 1.0)[:, None]
    explained = means.T @ (moments.count[:, None] * means)
    values, vectors = np.linalg.eigh(moments.second - explained)
    floor = LEAST_VARIANCE * max(float(np.mean(np.maximum(values, 0.0))), np.finfo(float).tiny)
    within = (vectors * np.maximum(values, floor)) @ vectors.T
    return Moments(moments.count, moments.sums, within + explained)


def frequent_class_rows(labels: npt.ArrayLike, classes: int, least: int) -> npt.NDArray[np.bool_]:
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


def implausible(parts: Sequence[Moments], multiplier: float, bound: float) -> dict[int, str]:
    """Find noisy moments above what rows of at most a 2-norm and their noise can make.

    Parameters
    ----------
    parts : sequence of Moments
        Of each site.
    multiplier, bound : float
        Noise multiplier and longest row, as in `noisy_moments`.

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
