"""Updates as plain arrays: their norms, and what bounds one update's influence. Pure and light."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Parameters = dict[str, npt.NDArray[Any]]
Arrays = Mapping[str, npt.NDArray[Any]]

Updates = Sequence[Parameters]
"""A round's updates: each the parameters of a site's trained model, by name."""

Weights = npt.NDArray[np.float64]
"""What each update weighs, shape (updates,): the rows of its site, capped, or a part of them."""


def update_norm(update: Arrays, reference: Arrays) -> float:
    """Return the 2-norm of the difference of two parameter sets, all arrays together.

    Angles that an update lacks (NaN, see `strategies.layerwise`) do not differ.
    """
    squares = [
        float(np.nansum((np.asarray(update[k], np.float64) - np.asarray(reference[k])) ** 2))
        for k in reference
    ]
    return float(np.sqrt(sum(squares)))


def longest_norms(norms: Sequence[float], steps: Sequence[int], ratio: float) -> list[float]:
    """Return above which 2-norm each update of a round is dropped.

    Parameters
    ----------
    norms : sequence of float
        2-norms of the round's updates, each the difference to the global parameters. Those of 0
        (COBYLA found nothing better) do not count towards the median.
    steps : sequence of int
        Optimizer steps that the server gave to each: more steps lead further.
    ratio : float
        Times the median norm that an update of the median number of steps may have.
    """
    moved = [norm for norm in norms if norm > 0]
    if not moved:
        return [0.0] * len(norms)
    usual = max(float(np.median(steps)), 1.0)
    return [ratio * float(np.median(moved)) * max(1.0, given / usual) for given in steps]


def clip_to_centre(
    updates: Sequence[Arrays], radius: float, least: float
) -> tuple[list[Parameters], list[float]]:
    """Move updates that lie far from the others towards these (centred clipping).

    The centre is the median of each coordinate. An update further from it than `radius` times the
    median distance moves along the line to the centre until it is as near. With equal weights f of
    n updates, whatever they hold, move the mean at most by f / n times that distance. No update
    moves where all are about as far from the centre.

    Parameters
    ----------
    updates : sequence of mapping
        Named arrays of each update, alike in names and shapes.
    radius : float
        Times the median distance.
    least : float
        A median distance below this counts as this: where most updates are equal, the others
        still count for something.

    Returns
    -------
    tuple
        The updates, and by what each distance was multiplied: 1 where it did not move.

    References
    ----------
    Karimireddy, He, Jaggi (2021), arXiv 2012.10333; the centre is another.
    """
    centre = _centre_of(updates)
    away = [
        math.sqrt(sum(float(np.nansum((one[k] - middle) ** 2)) for k, middle in centre.items()))
        for one in updates
    ]
    longest = radius * max(float(np.median(away)), least)
    shares = [min(1.0, longest / distance) if distance else 1.0 for distance in away]
    return [_moved(*pair, centre) for pair in zip(updates, shares, strict=True)], shares


def is_partial(update: Arrays) -> bool:
    """Whether an update lacks angles."""
    return any(bool(np.isnan(one).any()) for one in update.values())


def _centre_of(updates: Sequence[Arrays]) -> Parameters:
    """Return the median of each coordinate, of the updates that have it."""
    median = _median_of_some if any(map(is_partial, updates)) else np.median
    return {
        name: median(np.array([np.asarray(one[name], np.float64) for one in updates]), axis=0)
        for name in updates[0]
    }


def _median_of_some(values: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Return the median without NaNs; NaN where there is nothing else."""
    nobody = np.isnan(values).all(axis=axis)
    found = np.nanmedian(np.where(nobody, 0.0, values), axis=axis)
    return np.asarray(np.where(nobody, np.nan, found))


def _moved(update: Arrays, share: float, centre: Arrays) -> Parameters:
    if share == 1.0:
        return dict(update)
    return {
        name: (middle + share * (update[name] - middle)).astype(update[name].dtype)
        for name, middle in centre.items()
    }
