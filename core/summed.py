"""An update as the vector that is summed, and the mean that a sum gives. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
Vector = npt.NDArray[np.float64]


def summand(trained: Arrays, reference: Arrays, weight: float) -> Vector:
    """Return what a site adds to its group's sum.

    Parameters
    ----------
    trained, reference : mapping of arrays
        The site's parameters, and the global ones; the same names and shapes, P numbers.
    weight : float
        What the site weighs, above 0.

    Returns
    -------
    array
        (P + 1,): weight times update, in sorted order of names; then the weight.
    """
    moved = [np.asarray(trained[k], np.float64) - reference[k] for k in sorted(reference)]
    return np.append(weight * np.concatenate(moved, axis=None), weight)


def length(reference: Arrays) -> int:
    """Return how long a summand is."""
    return 1 + sum(array.size for array in reference.values())


def mean_of(total: Vector, reference: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Return the weighted mean of the parameters whose summands were added.

    Parameters
    ----------
    total : array
        The sum of summands, (P + 1,); its weight is above 0.
    reference : mapping of arrays
        The global parameters.
    """
    moved = total[:-1] / total[-1]
    arrays, start = {}, 0
    for name in sorted(reference):
        old = np.asarray(reference[name])
        part = moved[start : start + old.size].reshape(old.shape)
        arrays[name] = (old + part).astype(old.dtype)
        start += old.size
    return arrays


def longer_than(total: Vector, bound: float) -> float:
    """Return by what share a sum is longer than one of updates of at most a 2-norm; 0: it is not.

    The triangle inequality: ||sum w u|| <= bound times the sum of w. Rounding of single precision
    and of fixed point is allowed for.
    """
    longest = bound * float(total[-1]) * (1 + 1e-4) + 1e-6
    return max(0.0, float(np.linalg.norm(total[:-1])) / longest - 1.0)
