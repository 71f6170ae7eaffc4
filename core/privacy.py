"""Differential privacy through Flower's own parts: clipping and noise.

Like `core.messages` a door of its own, since it needs Flower.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from core.flower_compat import add_noise_in_place, clip_in_place, norm
from core.messages import Parameters
from core.seeds import derive_seed
from core.settings.schema import Settings


def clipped(
    update: Mapping[str, npt.NDArray[Any]], reference: Mapping[str, npt.NDArray[Any]], bound: float
) -> Parameters:
    """Return parameters whose difference to the reference has at most a 2-norm.

    Parameters
    ----------
    update, reference : mapping of arrays
        What a client trained, and what it began with; the same names and shapes.
    bound : float
        Longest difference, over all arrays together.
    """
    names = sorted(reference)
    change = [np.asarray(update[k], np.float64) - reference[k] for k in names]
    if norm(change) > bound:  # Flower divides by the norm, which may be 0
        clip_in_place(change, bound)
    moved = zip(names, change, strict=True)
    return {k: (reference[k] + part).astype(reference[k].dtype) for k, part in moved}


def noised(
    parameters: Mapping[str, npt.NDArray[Any]], deviation: float, seed: int | None
) -> Parameters:
    """Return parameters with Gaussian noise on every number.

    Parameters
    ----------
    parameters : mapping of arrays
        Any shapes.
    deviation : float
        The noise's standard deviation.
    seed : int or None
        Of the noise; None: from the system, so that it cannot be drawn again.
    """
    names = sorted(parameters)
    arrays = [np.array(parameters[name], np.float64) for name in names]
    with _drawing(seed):
        add_noise_in_place(arrays, deviation)
    return {k: a.astype(parameters[k].dtype) for k, a in zip(names, arrays, strict=True)}


@contextmanager
def _drawing(seed: int | None) -> Iterator[None]:
    """Let Flower, which draws from numpy's global generator, draw from one of our own."""
    words = np.random.SeedSequence(secrets.randbits(256) if seed is None else seed)
    before = np.random.get_state()
    np.random.seed(words.generate_state(16))
    try:
        yield
    finally:
        np.random.set_state(before)


def noise_seed(settings: Settings, *what: str | int) -> int | None:
    """Return the seed of some noise, or None where it must stay unknown."""
    seeded = settings.privacy.seeded
    return derive_seed(settings.run.seed, "privacy", *what) if seeded else None
