"""The classifier's parameters: one flat vector, one dictionary of arrays, one shape contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ANGLE_SPREAD = 0.1  # radians: near the identity, where gradients do not vanish with size
FIRST_SCALE = 4.0  # |z| <= 1, so logits need a scale above one to reach confident classes


@dataclass(frozen=True)
class ParameterSpec:
    """Names and shapes of the parameters.

    Attributes
    ----------
    angles : int
        Number of angles P.
    readouts : int
        Number of read-outs R.
    """

    angles: int
    readouts: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array, in the flat vector's order."""
        return {"angles": (self.angles,), "scale": (self.readouts,), "bias": (self.readouts,)}

    @property
    def size(self) -> int:
        """Length D = P + 2 R of the flat vector."""
        return self.angles + 2 * self.readouts

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """Draw initial parameters.

        Angles are normal with standard deviation 0.1 rad: the circuit starts near fixed gates,
        where gradients do not vanish with the number of qubits as they do at random angles
        (barren plateaus). Scales are 4, biases 0.

        Parameters
        ----------
        seed : int
            Same seed, same numbers.

        Returns
        -------
        dict of numpy.ndarray
            float32 arrays of `shapes`.
        """
        draw = np.random.default_rng(seed).normal(0.0, ANGLE_SPREAD, self.angles)
        return {
            "angles": draw.astype(np.float32),
            "scale": np.full(self.readouts, FIRST_SCALE, dtype=np.float32),
            "bias": np.zeros(self.readouts, dtype=np.float32),
        }

    def flatten(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Join the arrays to one float64 vector of shape (D,).

        Raises
        ------
        ValueError
            If names or shapes are not `shapes`, or a number is not finite.
        """
        given = {name: np.shape(value) for name, value in parameters.items()}
        if given != self.shapes:
            raise ValueError(f"parameters have shapes {given}; the model's are {self.shapes}.")
        arrays = [np.asarray(parameters[name], dtype=np.float64) for name in self.shapes]
        flat = np.concatenate(arrays)
        if not np.isfinite(flat).all():
            raise ValueError("parameters hold numbers that are not finite.")
        return flat

    def unflatten(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Split a vector of shape (D,) into float32 arrays."""
        p, r = self.angles, self.readouts
        parts = np.split(np.asarray(flat, dtype=np.float32), [p, p + r])
        return {name: part.copy() for name, part in zip(self.shapes, parts, strict=True)}
