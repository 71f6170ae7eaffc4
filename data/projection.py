"""The federated projection: raw features to one angle a qubit, from summed moments only.

Features are first divided by their pooled standard deviations (with the raw frequencies of
4-mers, four principal components hold little but the commonest k-mers: 86.6 % against 92.6 %
accuracy of a logistic regression on human_vs_worm). With S_w the covariance within classes,
S_b that between class means and S_t = S_w + S_b of these, the directions v of `lda` solve

    S_b v = lambda ((1 - s) S_w + s tr(S_w) / d I) v,     s the shrinkage,

the C - 1 of largest lambda (fewer where class means lie in fewer dimensions); then come the
principal directions of S_t in what is orthogonal to these. A projected feature is divided by
sigma, sigma^2 = v^T S_t v, clipped at `clip` and scaled to an angle in [-pi/2, pi/2].

Of several kinds of features side by side each is scaled to the same total variance (block
scaling; Westerhuis, Kourti and MacGregor, J. Chemometrics 12, 1998): else principal directions
would be those of the kind with most columns, and the shrinkage, whose size is the mean variance of
all, would act on all columns alike.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from core import DataError
from data.moments import Matrix, Moments
from data.rows import generator

RIDGE = 1e-8  # of a feature's variance: keeps the eigenproblem definite without shrinkage
FLAT = 1e-10  # of a feature's variance: a direction with less counts as flat
ALIKE = 1e-7  # of the largest distance of class means: less is rounding
ROUNDING = 1e-12  # of a feature's mean square: less is rounding, not variance
_EDGE = float(np.nextafter(np.float32(np.pi / 2), np.float32(0)))


@dataclass(frozen=True)
class Projection:
    """Fitted map from d features to n angles.

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
        Pooled mean.
    matrix : ndarray of float64, shape (d, n)
        Directions, in columns; of unit length in standardised features.
    scale : ndarray of float64, shape (n,)
        Pooled standard deviation along each direction.
    clip : float
        Where features are clipped, in standard deviations.
    kinds : str
        The features that it takes, as `features.kind` names them; empty: not recorded.
    shrinkage : float
        With which it was fitted.
    """

    mean: Matrix
    matrix: Matrix
    scale: Matrix
    clip: float
    kinds: str = ""
    shrinkage: float = 0.0

    @property
    def qubits(self) -> int:
        """Number of directions, n."""
        return int(self.matrix.shape[1])

    def __post_init__(self) -> None:
        """Check the shapes: a projection comes over the network."""
        features, qubits = (*self.matrix.shape, 0, 0)[:2]
        if self.mean.shape != (features,) or self.scale.shape != (qubits,) or not qubits:
            raise DataError(
                f"a projection of shapes {self.mean.shape}, {self.matrix.shape}, "
                f"{self.scale.shape}",
                "(d,), (d, n), (n,)",
                "use the same version on server and clients",
            )

    def apply(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Project rows.

        Parameters
        ----------
        features : array, shape (rows, d)
            Raw features.

        Returns
        -------
        ndarray of float32, shape (rows, n)
            Angles in [-pi/2, pi/2].

        Raises
        ------
        DataError
            If the rows have other than d features.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise DataError(
                f"features of shape {x.shape}",
                f"(rows, {len(self.mean)}), as the projection was fitted",
                "use the same features and llm.model on every node",
            )
        z = np.clip((x - self.mean) @ self.matrix / self.scale, -self.clip, self.clip)
        angles = (z * (np.pi / 2 / self.clip)).astype(np.float32)
        # float32(pi / 2) lies above pi / 2.
        return np.clip(angles, -_EDGE, _EDGE)

    def to_bytes(self) -> bytes:
        """Pack into bytes (numpy's npz, no pickle)."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            mean=self.mean,
            matrix=self.matrix,
            scale=self.scale,
            clip=np.array(self.clip, dtype=np.float64),
            kinds=np.array(self.kinds),
            shrinkage=np.array(self.shrinkage, dtype=np.float64),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, packed: bytes) -> Projection:
        """Unpack what `to_bytes` made; nothing in it is executed.

        Raises
        ------
        DataError
            If the bytes are anything else.
        """
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as held:
                parts = held["mean"], held["matrix"], held["scale"], float(held["clip"])
                kinds = str(held["kinds"]) if "kinds" in held else ""
                shrinkage = float(held["shrinkage"]) if "shrinkage" in held else 0.0
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{len(packed)} bytes that are no packed projection",
                "the result of Projection.to_bytes",
                "use the same version on server and clients",
            ) from error
        return cls(*parts, kinds, shrinkage)


def fit_projection(
    moments: Moments,
    qubits: int,
    kind: Literal["lda", "pca", "random"],
    shrinkage: float,
    clip: float,
    seed: int,
    blocks: Sequence[int] = (),
) -> Projection:
    """Fit the projection to the summed moments of all sites' training rows.

    Parameters
    ----------
    moments : Moments
        Summed over sites.
    qubits : int
        Directions wanted, n.
    kind : {"lda", "pca", "random"}
        Discriminant directions, then principal ones of the residual; principal directions; or
        orthonormal directions drawn at random.
    shrinkage : float
        s of `lda`, in [0, 1].
    clip : float
        Clipping of the projected features, in standard deviations.
    seed : int
        Draws the directions of `random`.
    blocks : sequence of int
        Number of features of each kind, where there are several side by side.

    Returns
    -------
    Projection
        Directions in columns, the (standardised) entry of largest magnitude positive.

    Raises
    ------
    DataError
        If there are more qubits than features that vary, or `lda` has rows of one class only.
    """
    return fit_projections(moments, qubits, kind, (shrinkage,), clip, seed, blocks)[0]


def fit_projections(
    moments: Moments,
    qubits: int,
    kind: Literal["lda", "pca", "random"],
    shrinkages: Sequence[float],
    clip: float,
    seed: int,
    blocks: Sequence[int] = (),
) -> list[Projection]:
    """Fit a projection for each of several shrinkages: as `fit_projection`, with less work."""
    weights, total = _standardised(moments, blocks)
    _check_directions(total, qubits)
    if kind == "lda":
        matrices = _lda(moments, weights, qubits, shrinkages)
    elif kind == "pca":
        matrices = [_principal(total, qubits)] * len(shrinkages)
    else:
        drawn = generator(seed, "projection").standard_normal((len(total), qubits))
        matrices = [np.linalg.qr(drawn)[0]] * len(shrinkages)
    found = []
    for matrix, shrinkage in zip(map(_signed, matrices), shrinkages, strict=True):
        scale = np.sqrt(np.einsum("di,di->i", matrix, total @ matrix))
        directions = weights[:, None] * matrix
        found.append(Projection(moments.mean, directions, scale, clip, shrinkage=shrinkage))
    return found


def varying_directions(moments: Moments, blocks: Sequence[int] = ()) -> int:
    """Count the directions in which rows vary: no more qubits than that have a feature each."""
    return _varying(_standardised(moments, blocks)[1])


def _standardised(moments: Moments, blocks: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Return the features' weights (d,), and the covariance of the weighted features (d, d)."""
    weights = feature_weights(moments)
    if len(blocks) > 1:
        weights = weights * _block_weights(weights, blocks)
    return weights, _weighted(moments.total_covariance(), weights)


def feature_weights(moments: Moments) -> Matrix:
    """One over each feature's pooled standard deviation; 0 where it does not vary."""
    squares = np.diag(moments.second) / moments.rows
    variance = squares - moments.mean**2
    varies = variance > ROUNDING * squares
    return np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0.0)


def _block_weights(weights: Matrix, blocks: Sequence[int]) -> Matrix:
    """Weight standardised features so that each block has the same part of the variance."""
    held = [
        max(1, int(np.count_nonzero(part))) for part in np.split(weights, np.cumsum(blocks)[:-1])
    ]
    each = np.sqrt(np.mean(held) / np.asarray(held, dtype=np.float64))
    return np.asarray(np.repeat(each, blocks))


def _weighted(covariance: Matrix, weights: Matrix) -> Matrix:
    return covariance * np.outer(weights, weights)


def _check_directions(total: Matrix, qubits: int) -> None:
    varying = _varying(total)
    if qubits > varying:
        raise DataError(
            f"quantum.qubits = {qubits}, and the {len(total)} features of the training rows "
            f"vary in {varying} directions",
            f"at most {varying} qubits",
            "lower quantum.qubits, raise features.k, or add rows",
        )


def _varying(total: Matrix) -> int:
    return int((np.linalg.eigvalsh(total) > FLAT).sum())


def _lda(
    moments: Moments, weights: Matrix, qubits: int, shrinkages: Sequence[float]
) -> list[Matrix]:
    """Return the directions of each shrinkage, (d, n)."""
    held = moments.count > 0
    if held.sum() < 2:
        raise DataError(
            "training rows of one class only",
            "two classes or more for features.projection = lda",
            "add rows of another class, or set features.projection = pca",
        )
    within = _weighted(moments.within_covariance(), weights)
    apart = moments.sums[held] / moments.count[held, None] - moments.mean
    apart *= np.sqrt(moments.count[held, None] / moments.rows) * weights
    total = within + apart.T @ apart
    matrices = []
    for shrinkage in shrinkages:
        directions = _discriminants(within, apart, shrinkage)[:, :qubits]
        matrices.append(_with_residual(directions, total, qubits))
    return matrices


def _discriminants(within: Matrix, apart: Matrix, shrinkage: float) -> Matrix:
    """Solve the eigenproblem of `lda`, S_b = A^T A with A of shape (C, d), in C - 1 dimensions.

    With L L^T the shrunk S_w the solutions are v = L^-T u, u the left singular vectors of
    L^-1 A^T: all that lambda is not 0 for. Class means that lie in fewer dimensions have fewer.
    """
    from scipy.linalg import cholesky, solve_triangular

    features = len(within)
    shrunk = (1 - shrinkage) * within
    shrunk += np.eye(features) * (shrinkage * np.trace(within) / features + RIDGE)
    factor = cholesky(shrunk, lower=True)
    white = solve_triangular(factor, apart.T, lower=True)
    left, sizes, _ = np.linalg.svd(white, full_matrices=False)
    count = int((sizes[: len(apart) - 1] > ALIKE * sizes[0]).sum())
    found = solve_triangular(factor, left[:, :count], lower=True, trans="T")
    return np.asarray(found / np.linalg.norm(found, axis=0))


def _with_residual(directions: Matrix, total: Matrix, qubits: int) -> Matrix:
    """Add principal directions of what is left: exactly orthogonal, in a basis of it."""
    found = directions.shape[1]
    if found == qubits:
        return directions
    basis = np.linalg.qr(directions, mode="complete")[0][:, found:]
    rest = basis @ _principal(basis.T @ total @ basis, qubits - found)
    return np.hstack([directions, rest])


def _principal(covariance: Matrix, count: int) -> Matrix:
    """Eigenvectors of the largest eigenvalues, in columns, largest first."""
    from scipy.linalg import eigh

    size = len(covariance)
    found = eigh(covariance, subset_by_index=[size - count, size - 1], check_finite=False)[1]
    return np.asarray(found[:, ::-1])


def _signed(matrix: Matrix) -> Matrix:
    """Make the entry of largest magnitude of each column positive."""
    largest = np.argmax(np.abs(matrix), axis=0)
    return np.asarray(matrix * np.sign(matrix[largest, np.arange(matrix.shape[1])]))
