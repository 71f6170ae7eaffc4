"""Moments of features per class: all that a client tells of its rows."""

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
    return Moments(
        np.sum([part.count for part in parts], axis=0),
        np.sum([part.sums for part in parts], axis=0),
        np.sum([part.second for part in parts], axis=0),
    )
