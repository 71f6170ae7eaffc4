"""A linear probe of features: how well classes are told apart on the qubits, from moments alone.

For each shrinkage s that is tried the rows are projected as the run would project them, and for
each number of qubits n a linear discriminant tells the classes apart by the first n of the
projected features z: with S_w their covariance within classes, m_c the mean of class c, n_c its
rows and w_c its weight,

    logit_c = z S_w^-1 m_c - m_c S_w^-1 m_c / 2 + log(w_c n_c).

It is scikit-learn's `LinearDiscriminantAnalysis` on the projected pooled rows, and like any model
that is trained on these it is overconfident where few rows made the projection: validation rows
show that. Each probability is mixed with `DOUBT` of even odds, so that one row of a rare class,
which weighs much, does not choose alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from core import DataError
from data.metrics import LEAST_PROBABILITY
from data.moments import Matrix, Moments
from data.projection import Projection, fit_projections

SHRINKAGES = (0.01, 0.1, 0.3, 0.6, 0.9)
"""Those that are tried: few rows with many features need much of it."""

USUAL_SHRINKAGE = 0.1
"""Where there is nothing to choose by."""

DOUBT = 0.05

RIDGE = 1e-6  # of a projected feature's variance: flat directions stay solvable


@dataclass(frozen=True)
class Probe:
    """A linear classifier for each of S shrinkages and N numbers of qubits, at most n.

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
        Of raw features.
    matrix : ndarray of float64, shape (S, d, n)
        Directions, each divided by its standard deviation.
    weights : ndarray of float64, shape (S, N, n, C)
        Of projected features; 0 for those that fewer qubits do not have.
    bias : ndarray of float64, shape (S, N, C)
        Of the classes' logits.
    """

    mean: Matrix
    matrix: Matrix
    weights: Matrix
    bias: Matrix

    def __post_init__(self) -> None:
        """Check the shapes: a probe comes over the network."""
        tried, features, qubits = (*self.matrix.shape, 0, 0, 0)[:3]
        if (
            self.mean.shape != (features,)
            or self.bias.ndim != 3
            or self.weights.shape != (tried, self.bias.shape[1], qubits, self.bias.shape[2])
        ):
            shapes = self.mean.shape, self.matrix.shape, self.weights.shape, self.bias.shape
            raise DataError(
                f"a probe of shapes {', '.join(map(str, shapes))}",
                "(d,), (S, d, n), (S, N, n, C), (S, N, C)",
                "use the same version on server and clients",
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """The N numbers of qubits: those up to n."""
        most = self.matrix.shape[2]
        return tuple(range(most - self.bias.shape[1] + 1, most + 1))

    @property
    def tried(self) -> tuple[int, int]:
        """Number of shrinkages S and of numbers of qubits N."""
        return self.bias.shape[0], self.bias.shape[1]

    def losses(
        self, features: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike, clip: float
    ) -> tuple[Matrix, Matrix]:
        """Evaluate every classifier on rows.

        Parameters
        ----------
        features : array, shape (rows, d)
            Raw features; at least one row.
        labels : array of int, shape (rows,)
            Classes.
        weights : array, shape (C,)
            Weights of the classes.
        clip : float
            Where projected features are clipped, in standard deviations.

        Returns
        -------
        (array, array), both of shape (S, N)
            The mean over rows of class weight times negative log-likelihood, nats; and the root
            mean square, over rows, of how far that is from the same with most qubits.

        Raises
        ------
        DataError
            If the rows have other than d features.
        """
        x, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise DataError(
                f"features of shape {x.shape}",
                f"(rows, {len(self.mean)}), as the probe was fitted",
                "use the same features and llm.model on every node",
            )
        w, found, spreads = np.asarray(weights)[y], [], []
        for matrix, heads, biases in zip(self.matrix, self.weights, self.bias, strict=True):
            z = np.clip((x - self.mean) @ matrix, -clip, clip)
            logits = z @ heads + biases[:, None]  # (N, rows, C)
            likelihood = np.exp(logits - logits.max(axis=2, keepdims=True))
            likelihood /= likelihood.sum(axis=2, keepdims=True)
            likely = likelihood[:, np.arange(len(y)), y]
            each = -w * np.log((1 - DOUBT) * likely + DOUBT / likelihood.shape[2])
            found.append(each.mean(axis=1))
            spreads.append(np.sqrt(np.mean((each - each[-1]) ** 2, axis=1)))
        return np.stack(found), np.stack(spreads)


def fit_probe(
    moments: Moments,
    widths: Sequence[int],
    shrinkages: Sequence[float],
    weights: npt.ArrayLike,
    *,
    kind: Literal["lda", "pca", "random"] = "lda",
    clip: float = 3.0,
    seed: int = 0,
    blocks: Sequence[int] = (),
) -> Probe:
    """Fit the probe to the summed moments of all sites' training rows.

    Parameters
    ----------
    moments : Moments
        Summed over sites.
    widths : sequence of int
        Numbers of qubits to try, one after the other.
    shrinkages : sequence of float
        Shrinkages to try.
    weights : array, shape (C,)
        Weights of the classes.
    kind, clip, seed, blocks
        As in `fit_projection`.

    Raises
    ------
    DataError
        As `fit_projection`, and if no rows have such moments.
    """
    try:
        maps = fit_projections(moments, widths[-1], kind, shrinkages, clip, seed, blocks)
    except np.linalg.LinAlgError:
        raise _impossible(moments) from None
    if not all(np.isfinite(one.scale).all() and one.scale.all() for one in maps):
        raise _impossible(moments)
    within, shares = moments.within_covariance(), np.asarray(weights, np.float64)
    heads = [_heads(moments, within, one, widths, shares) for one in maps]
    return Probe(
        moments.mean,
        np.stack([one.matrix / one.scale for one in maps]),
        np.stack([weights for weights, _ in heads]),
        np.stack([bias for _, bias in heads]),
    )


def _impossible(moments: Moments) -> DataError:
    return DataError(
        f"moments of {len(moments.second)} features that are no covariance",
        "sums over rows",
        "check the sites' features",
    )


def _heads(
    moments: Moments,
    covariance: Matrix,
    projection: Projection,
    widths: Sequence[int],
    weights: Matrix,
) -> tuple[Matrix, Matrix]:
    """Return the discriminants on the first features, (N, n, C) and (N, C)."""
    directions = projection.matrix / projection.scale
    held = moments.count > 0
    means = np.zeros_like(moments.sums)
    means[held] = moments.sums[held] / moments.count[held, None] - moments.mean
    centres = means @ directions
    within = directions.T @ covariance @ directions
    prior = np.log(np.maximum(weights * moments.count / moments.rows, LEAST_PROBABILITY))
    found, bias = np.zeros((len(widths), *centres.T.shape)), np.zeros((len(widths), len(held)))
    for place, n in enumerate(widths):
        shared = within[:n, :n] + RIDGE * np.eye(n)
        found[place, :n] = np.linalg.solve(shared, centres[:, :n].T)
        bias[place] = prior - np.einsum("cn,nc->c", centres[:, :n], found[place, :n]) / 2
    return found, bias
