"""From rows to class probabilities, as the server evaluates a model and a loaded model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from core import Settings

if TYPE_CHECKING:
    from data import Projection
    from quantum import Classifier

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Embeds texts: (rows, hidden)."""

PREFIX = "projection."


@dataclass(frozen=True)
class Pipeline:
    """A model without its parameters: features, projection and circuit.

    Attributes
    ----------
    settings : Settings
        Of these the features.
    kind : {"text", "dna"}
        What a row is.
    embed : callable
        Embeds rows, where embeddings are the features.
    projection : Projection
        From raw features to angles.
    classifier : Classifier
        The circuit on its backend.
    """

    settings: Settings
    kind: Literal["text", "dna"]
    embed: Embed
    projection: Projection
    classifier: Classifier

    def raw(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the raw features of rows, (rows, d)."""
        from data import raw_features

        return raw_features(texts, self.kind, self.settings.features, self.embed)

    def probabilities(
        self, parameters: Mapping[str, npt.NDArray[np.float32]], angles: npt.ArrayLike, label: str
    ) -> npt.NDArray[np.float64]:
        """Return class probabilities (rows, C) of projected features (rows, n).

        The label says what the circuits are for: the same one gives the same shots.
        """
        from quantum import evaluate, metered

        with metered(self.classifier, label):
            return evaluate(self.classifier, parameters, np.asarray(angles))[0]


def projection_arrays(projection: Projection) -> dict[str, npt.NDArray[np.float64]]:
    """Return a projection as the arrays that stand beside a model's parameters."""
    parts = {
        "mean": np.asarray(projection.mean),
        "matrix": np.ascontiguousarray(projection.matrix),
        "scale": np.asarray(projection.scale),
        "clip": np.asarray([projection.clip]),
    }
    return {f"{PREFIX}{name}": array for name, array in parts.items()}
