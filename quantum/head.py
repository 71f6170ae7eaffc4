"""The read-out's head: from the expectations that are measured to the classes' logits.

``per-class``: one expectation a class, logits ``scale_c z_c + bias_c``; two classes share one, and
the first logit is zero. ``linear``: logits ``W z + b`` of all K expectations. Either is the same
few lines for NumPy's arrays and torch's tensors, and costs no circuit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from core import QuantumSettings
    from quantum.circuit import Circuit

FIRST_SCALE = 4.0  # |z| <= 1, so logits need a scale above one to reach confident classes
FIRST_SPREAD = 0.5


@dataclass(frozen=True)
class Head:
    """What follows the measurement.

    Attributes
    ----------
    measured : int
        Number of expectations K.
    classes : int
        Number of classes C.
    linear : bool
        Whether every class sees every expectation.
    """

    measured: int
    classes: int
    linear: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of "scale" and "bias", (K,); of a linear head "weights" (C, K), "bias" (C,)."""
        if self.linear:
            return {"weights": (self.classes, self.measured), "bias": (self.classes,)}
        return {"scale": (self.measured,), "bias": (self.measured,)}

    @property
    def size(self) -> int:
        """Number of trainable numbers H."""
        return self.classes * (self.measured + 1) if self.linear else 2 * self.measured

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the parameters of the start: scales 4, or small random weights; biases 0."""
        first = (
            {"weights": rng.normal(0.0, FIRST_SPREAD, self.shapes["weights"])}
            if self.linear
            else {"scale": np.full(self.measured, FIRST_SCALE)}
        )
        first["bias"] = np.zeros(self.shapes["bias"])
        return {name: value.astype(np.float32) for name, value in first.items()}

    def shifted(
        self, parameters: Mapping[str, np.ndarray], shift: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return parameters whose logits differ from the given ones' by a constant a class.

        Parameters
        ----------
        parameters : mapping of numpy.ndarray
            The head's, among others.
        shift : numpy.ndarray, shape (C,)
            Added to the logits; one read-out for two classes takes their difference.
        """
        bias = np.asarray(parameters["bias"])
        change = shift if len(bias) == self.classes else shift[1:] - shift[0]
        return {**parameters, "bias": (bias + change).astype(bias.dtype)}

    def logits(self, z: Any, parameters: Any) -> Any:
        """Turn expectations into logits.

        Parameters
        ----------
        z : torch.Tensor or numpy.ndarray, shape (rows, K)
            Expectations in [-1, 1].
        parameters : torch.Tensor or numpy.ndarray, shape (H,)
            The head's own, in the order of `shapes`.

        Returns
        -------
        torch.Tensor or numpy.ndarray, shape (rows, C)
            The logits.
        """
        bias = parameters[-self.shapes["bias"][0] :]
        first = parameters[: self.size - len(bias)]
        if self.linear:
            return z @ first.reshape(self.classes, self.measured).T + bias
        logits = first * z + bias
        if self.measured > 1:
            return logits
        if isinstance(logits, np.ndarray):
            return np.pad(logits, ((0, 0), (1, 0)))
        import torch

        return torch.nn.functional.pad(logits, (1, 0))


def head_of(ansatz: Circuit, settings: QuantumSettings, classes: int) -> Head:
    """Return the head behind a circuit."""
    return Head(len(ansatz.readouts), classes, settings.readout != "per-class")
