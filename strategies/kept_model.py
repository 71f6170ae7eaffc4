"""The model that a run keeps: of its best round, of its last, or the mean of the last rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord

from core.messages import Parameters, pack_parameters, unpack_parameters

MOST_AVERAGED = 5
"""Rounds whose parameters are averaged, at most; and at most the later half of the rounds."""


@dataclass
class KeptModel:
    """The models that may be kept, as far as the rounds have come.

    Attributes
    ----------
    keep : str
        ``evaluation.keep``.
    round, arrays : int, ArrayRecord or None
        The best round so far, or the last one, and its model; 0 and None before the first.
    recent : dict
        Parameters of the newest rounds, by round, oldest first; empty unless they are averaged.
    averaged : list of int
        Rounds whose mean is the kept model; empty: it is that of `round`.
    scores : tuple of float, or None
        Validation loss and accuracy of that mean.
    """

    keep: str
    round: int = 0
    arrays: ArrayRecord | None = None
    recent: dict[int, Parameters] = field(default_factory=dict)
    averaged: list[int] = field(default_factory=list)
    scores: tuple[float, float] | None = None

    def add(self, number: int, arrays: ArrayRecord, losses: Sequence[float]) -> None:
        """Note a round's model; the last of ``losses`` is its own."""
        if self.arrays is None or self.keep == "last" or losses[-1] <= min(losses):
            self.round, self.arrays = number, arrays
        if self.keep == "average":
            self.recent[number] = unpack_parameters(arrays)
            for old in sorted(self.recent)[:-MOST_AVERAGED]:
                del self.recent[old]

    def average(self, rounds: int) -> tuple[list[int], ArrayRecord] | None:
        """Return the mean of the last models, and of which rounds; None if there are not two.

        Parameters
        ----------
        rounds : int
            Rounds with a model of their own so far: the later half of them is averaged.
        """
        count = min(MOST_AVERAGED, math.ceil(rounds / 2))
        newest = sorted(self.recent)[-count:] if count else []
        if len(newest) < 2:
            return None
        return newest, pack_parameters(mean_of([self.recent[number] for number in newest]))

    def choose(
        self, rounds: list[int], mean: ArrayRecord, scores: tuple[float, float], best: float
    ) -> None:
        """Keep the mean of the rounds if its validation loss is not above ``best``, in nats."""
        if scores[0] <= best:
            self.averaged, self.arrays, self.scores = rounds, mean, scores

    def restore(self, number: int, arrays: ArrayRecord | None, stored: Parameters) -> None:
        """Go on with a run's kept model, of round ``number``, and with what `packed` returned."""
        self.round, self.arrays = number, arrays
        self.unpack(stored)

    def packed(self) -> Parameters:
        """Return the newest models as arrays of one file, each named after its round."""
        return {
            f"{number}/{name}": array
            for number, parameters in self.recent.items()
            for name, array in parameters.items()
        }

    def unpack(self, stored: Parameters) -> None:
        """Read what `packed` returned."""
        self.recent = {}
        for key, array in sorted(stored.items()):
            number, _, name = key.partition("/")
            self.recent.setdefault(int(number), {})[name] = array


def mean_of(models: Sequence[Parameters]) -> Parameters:
    """Return the mean of models array by array, in the arrays' own type."""
    return {
        name: np.mean([one[name] for one in models], axis=0, dtype=np.float64).astype(first.dtype)
        for name, first in models[0].items()
    }
