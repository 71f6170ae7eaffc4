"""Numbers as elements of the ring of integers modulo 2^64, in which masks cancel exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.secagg.errors import SecAggError

FRACTION_BITS = 32
"""Binary digits behind the point: a number is off by at most 2^-33, a sum of m by m 2^-33."""

RANGE = 2.0**20
"""Largest absolute value; `wire.MOST_MEMBERS` = 1000 of them stay below 2^62 in the ring."""


def encode(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Round numbers to multiples of 2^-32; negative ones are counted down from 2^64.

    Parameters
    ----------
    vector : array of float64
        Any shape.

    Raises
    ------
    SecAggError
        If a number is not finite or beyond `RANGE`.
    """
    values = np.asarray(vector, np.float64)
    if not np.isfinite(values).all():
        raise SecAggError("the update holds a number that is not finite")
    if values.size and (largest := float(np.abs(values).max())) > RANGE:
        raise SecAggError(
            f"the weighted update holds a number of {largest:.4g}; accepted: at most {RANGE:.0f}"
        )
    return np.rint(values * 2.0**FRACTION_BITS).astype(np.int64).view(np.uint64)


def decode(total: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return the numbers of a sum in the ring, to float64's own precision."""
    return total.view(np.int64) / 2.0**FRACTION_BITS
