"""Models of unequal depth in one aggregation: each angle's rule sees the sites that have it; pure.

A site of fewer layers has the first angles of the global model and its whole head (layerwise
averaging; of depth what HeteroFL, Diao et al., ICLR 2021, arXiv 2010.01264, does of width). Angles
that an update lacks are not numbers (NaN) in its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from strategies.updates import Arrays, Parameters, Updates, Weights, is_partial

ANGLES = "angles"
Rule = Callable[[Updates, Weights, Arrays], Parameters]


def shapes_of(
    sent: ArrayRecord, reference: Arrays, depths: Collection[int]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that an update must have: of fewer layers, as many angles as these have.

    Parameters
    ----------
    sent : ArrayRecord
        What a client sent, not yet checked.
    reference : mapping
        The global arrays.
    depths : collection of int
        Angles of the circuits that the run's sites may have; empty: of the global one only.
    """
    shapes = {name: np.shape(one) for name, one in reference.items()}
    if depths and ANGLES in sent:
        found = tuple(sent[ANGLES].shape)
        if len(found) == 1 and found[0] in depths:
            shapes[ANGLES] = found
    return shapes


def widened(update: Parameters, reference: Arrays) -> Parameters:
    """Return an update in the global shapes: the angles that it lacks are NaN."""
    wide = dict(update)
    if ANGLES in update and update[ANGLES].shape != np.shape(reference[ANGLES]):
        full = np.full(np.shape(reference[ANGLES]), np.nan, update[ANGLES].dtype)
        full[: len(update[ANGLES])] = update[ANGLES]
        wide[ANGLES] = full
    return wide


def filled(update: Arrays, reference: Arrays) -> Parameters:
    """Return an update whose missing angles are the global ones: a model of all layers."""
    return {
        name: np.where(np.isnan(one), reference[name], one).astype(one.dtype)
        if is_partial({name: one})
        else one
        for name, one in update.items()
    }


def by_coverage(rule: Rule, updates: Updates, weights: Weights, reference: Arrays) -> Parameters:
    """Aggregate by a rule that treats each coordinate by itself.

    Parameters
    ----------
    rule : callable
        Takes updates, weights and the global arrays, whatever the length of the arrays.
    updates : sequence of dict of arrays
        Alike in names and shapes; NaN where one lacks a coordinate.
    weights : ndarray, shape (updates,)
        What each weighs.
    reference : mapping
        The global arrays: coordinates that no update has stay as they are there.

    Returns
    -------
    dict of arrays
        Each coordinate by the rule, of the updates that have it.
    """
    return {name: _one(rule, name, updates, weights, reference) for name in updates[0]}


def _one(
    rule: Rule, name: str, updates: Updates, weights: Weights, reference: Arrays
) -> npt.NDArray[Any]:
    flat = np.stack([one[name].ravel() for one in updates])
    first = np.asarray(reference[name]).ravel()
    has = ~np.isnan(flat)
    found = first.astype(flat.dtype)
    for pattern in np.unique(has, axis=1).T:
        at = (has == pattern[:, None]).all(axis=0)
        if pattern.any():
            parts = [{name: row[at]} for row in flat[pattern]]
            found[at] = rule(parts, weights[pattern], {name: first[at]})[name]
    return found.reshape(updates[0][name].shape)
