"""A linear probe of features: how well classes can be told apart by them, from moments alone.

Linear discriminant analysis of standardised features with a shrunken covariance: with S_w the
covariance within classes, m_c the mean of class c and pi_c its share of the rows,

    logit_c = x S^-1 m_c - m_c S^-1 m_c / 2 + log pi_c,   S = (1 - s) S_w + s tr(S_w) / d I,

for each shrinkage s of `SHRINKAGES`, d the number of features that vary. It is scikit-learn's
`LinearDiscriminantAnalysis` (solver lsqr) on the pooled rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core import DataError
from data.metrics import LEAST_PROBABILITY, scores
from data.moments import Matrix, Moments
from data.projection import feature_weights

SHRINKAGES = (0.1, 0.5, 0.9)
"""Those that are tried: few rows with many features need much of it."""


@dataclass(frozen=True)
class Probe:
    """A linear classifier for each shrinkage, S of them.

    Attributes
    ----------
    weights : ndarray of float64, shape (S, d, C)
        Of raw features.
    bias : ndarray of float64, shape (S, C)
        Of the classes' logits.
    """

    weights: Matrix
    bias: Matrix

    def __post_init__(self) -> None:
        """Check the shapes: a probe comes over the network."""
        if self.weights.ndim != 3 or self.bias.shape != self.weights.shape[::2]:
            raise DataError(
                f"a probe of shapes {self.weights.shape}, {self.bias.shape}",
                "(S, d, C), (S, C)",
                "use the same version on server and clients",
            )

    def losses(self, features: npt.ArrayLike, labels: npt.ArrayLike) -> list[float]:
        """Return the mean negative log-likelihood of rows for each shrinkage, nats.

        Parameters
        ----------
        features : array, shape (rows, d)
            Raw features; at least one row.
        labels : array of int, shape (rows,)
            Classes.

        Raises
        ------
        DataError
            If the rows have other than d features.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.weights.shape[1]:
            raise DataError(
                f"features of shape {x.shape}",
                f"(rows, {self.weights.shape[1]}), as the probe was fitted",
                "use the same features and llm.model on every node",
            )
        found = []
        for weights, bias in zip(self.weights, self.bias, strict=True):
            logits = x @ weights + bias
            likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
            likelihood /= likelihood.sum(axis=1, keepdims=True)
            found.append(float(scores(labels, likelihood)["loss"]))
        return found


def fit_probe(moments: Moments) -> Probe:
    """Fit the probe to the summed moments of all sites' training rows.

    Parameters
    ----------
    moments : Moments
        Summed over sites.

    Raises
    ------
    DataError
        If no rows have such moments.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    scale = feature_weights(moments)
    centres = moments.sums / np.maximum(moments.count, 1.0)[:, None] - moments.mean
    centres = np.where(moments.count[:, None] > 0, centres * scale, 0.0)
    within = moments.within_covariance() * np.outer(scale, scale)
    shares = np.log(np.maximum(moments.count / moments.rows, LEAST_PROBABILITY))
    ridge = float(np.trace(within)) / max(1, int(np.count_nonzero(scale)))
    weights, bias = [], []
    for s in SHRINKAGES:
        try:
            factor = cho_factor((1 - s) * within + s * ridge * np.eye(len(within)))
        except (LinAlgError, ValueError) as error:
            raise DataError(
                f"moments of {len(within)} features that are no covariance",
                "sums over rows",
                "check the sites' features",
            ) from error
        solved = cho_solve(factor, centres.T)
        raw = scale[:, None] * solved
        weights.append(raw)
        bias.append(shares - np.einsum("cd,dc->c", centres, solved) / 2 - moments.mean @ raw)
    return Probe(np.stack(weights), np.stack(bias))
