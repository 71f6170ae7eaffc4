"""What a kind of raw features declares of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from core import FeatureSettings

RowKind = Literal["text", "dna"]
Features = npt.NDArray[np.float32]
"""Raw features, (rows, d)."""

Embed = Callable[[Sequence[str]], Features]
"""Embeds texts with the frozen base language model: (rows, hidden)."""


@dataclass(frozen=True)
class FeatureKind:
    """A kind of raw features.

    Attributes
    ----------
    rows : tuple of str
        Which rows have it: ``text``, ``dna``.
    make : callable
        Makes the features (rows, d) of rows, from these, the settings, and what embeds texts.
    columns : callable
        Number of features d, from the settings and the letters of a sequence; 0: only the
        features themselves say it.
    most_letters : int
        Longest sequence that `auto` tries it on; 0: it takes sequences of any lengths. A kind with
        a bound needs sequences of one length.
    embeds : bool
        Whether a language model makes it.
    uses : tuple of str
        The settings that it reads.
    variants : tuple of int
        The values of `features.k` that `auto` tries, the usual one first.
    """

    rows: tuple[RowKind, ...]
    make: Callable[[Sequence[str], FeatureSettings, Embed], Features]
    columns: Callable[[FeatureSettings, int], int]
    most_letters: int = 0
    embeds: bool = False
    uses: tuple[str, ...] = ()
    variants: tuple[int, ...] = ()

    def unfit(self, length: int) -> str:
        """Say why `auto` does not try it on sequences; empty: it does.

        Parameters
        ----------
        length : int
            Letters of each sequence; 0: they differ.
        """
        if not self.most_letters:
            return ""
        if not length:
            return "takes sequences of one length"
        if length > self.most_letters:
            return f"is tried up to {self.most_letters} letters, and the sequences have {length}"
        return ""
