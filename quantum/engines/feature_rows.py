"""The prepared data set of engines that encode rows themselves, as gates of each circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FeatureRows:
    """A prepared data set: the features themselves, shape (rows, n), float64."""

    features: torch.Tensor

    @classmethod
    def of(cls, features: np.ndarray) -> FeatureRows:
        """Keep features of shape (rows, n) as a float64 tensor."""
        import torch

        return cls(torch.from_numpy(np.array(features, dtype=np.float64)))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.features)

    def take(self, indices: torch.Tensor) -> FeatureRows:
        """Return the rows at ``indices``."""
        return FeatureRows(self.features[indices])
