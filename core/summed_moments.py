"""Feature moments as the vector that is summed, and the moments that a sum gives. Pure.

Of each symmetric second moment the upper triangle travels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
Vector = npt.NDArray[np.float64]

COUNT, SUMS, SECOND = "count", "sums", "second"

LARGEST_WEIGHT = 2.0**12
"""Most that `weights_of` gives: of 2^20 that a sum may hold it leaves mean squares of 2^8."""

LARGEST_OF_EMBEDDINGS = 1.0
"""The same for embeddings, whose mean squares may be 2^20; features of norm 1 need the digits."""


def moment_vector(arrays: Arrays, factor: float) -> Vector:
    """Return a site's moments as one vector, times a factor.

    Parameters
    ----------
    arrays : mapping of arrays
        ``count`` (C,), ``sums`` (C, d) and ``second`` (d, d); ``<kind>.sums`` and ``<kind>.second``
        of other features, each with a d of its own.
    factor : float
        What the site weighs, by its rows.

    Returns
    -------
    array
        The counts; then of each kind, in order of the names, sums and the upper triangle of second
        moments by rows.
    """
    parts = [arrays[COUNT]]
    for prefix in prefixes(arrays):
        second = np.asarray(arrays[f"{prefix}{SECOND}"])
        parts += [arrays[f"{prefix}{SUMS}"], second[np.triu_indices(len(second))]]
    return np.asarray(np.concatenate(parts, axis=None, dtype=np.float64) * factor)


def prefixes(arrays: Iterable[str]) -> list[str]:
    """Return what stands before ``second`` in the names of arrays, ascending."""
    return sorted(name.removesuffix(SECOND) for name in arrays if name.endswith(SECOND))


def moment_length(classes: int, widths: Mapping[str, int]) -> int:
    """Return how long a vector of moments is.

    Parameters
    ----------
    classes : int
        Number of classes C.
    widths : mapping
        Features d by prefix, as in `prefixes`.
    """
    return classes + sum(classes * d + d * (d + 1) // 2 for d in widths.values())


def moments_of_sum(
    total: Vector, classes: int, widths: Mapping[str, int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the arrays that a vector of moments stands for; it is as long as `moment_length`."""
    arrays, start = {COUNT: total[:classes].copy()}, classes
    for prefix in sorted(widths):
        d, upper = widths[prefix], np.triu_indices(widths[prefix])
        arrays[f"{prefix}{SUMS}"] = total[start : start + classes * d].reshape(classes, d).copy()
        start += classes * d
        second = np.zeros((d, d))
        second[upper] = total[start : start + len(upper[0])]
        arrays[f"{prefix}{SECOND}"] = second + np.triu(second, 1).T
        start += len(upper[0])
    return arrays


def scale_of(counted: Iterable[int], largest: float) -> float:
    """Return the power of two with which rows that count become weights of at most a number.

    The vector of a site is its weight times means over its rows: with a power of two its digits
    are those of the sums over rows.
    """
    return 2.0 ** math.floor(math.log2(largest / max(counted)))
