"""The quantum classifier: an ansatz, an engine, and the read-out that turns z into classes.

Two classes: one read-out, logits ``[0, scale z + bias]``. More classes: one read-out each on
its own qubit, logits ``scale_c z_c + bias_c``. All read-outs are Z and commute, so one circuit
serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core import DataError, QuantumSettings
from quantum.circuit import Circuit, build_ansatz
from quantum.engines.base import EncodedRows, Engine, Host, is_device
from quantum.engines.factory import build_engine
from quantum.engines.pauli import PauliEngine

if TYPE_CHECKING:
    from torch import Tensor

ANGLE_SPREAD = 0.1  # radians: near the identity, where gradients do not vanish with size
FIRST_SCALE = 4.0  # |z| <= 1, so logits need a scale above one to reach confident classes


@dataclass(frozen=True)
class Classifier:
    """A quantum classifier.

    Attributes
    ----------
    ansatz : Circuit
        The circuit.
    engine : Engine
        What computes it.
    classes : int
        Number of classes C.
    """

    ansatz: Circuit
    engine: Engine
    classes: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of "angles" (P,), "scale" (R,) and "bias" (R,); R = 1 if C == 2 else C."""
        readouts = len(self.ansatz.readouts)
        return {"angles": (self.angles,), "scale": (readouts,), "bias": (readouts,)}

    @property
    def angles(self) -> int:
        """Number of trainable weights P of the ansatz."""
        return self.ansatz.angles

    @property
    def two_qubit_gates(self) -> int:
        """Two-qubit gates per circuit: a device's after transpiling, else CNOTs on any pair."""
        engine = self.engine
        return (engine if is_device(engine) else self.ansatz).two_qubit_gates

    def describe(self) -> str:
        """Return for instance ``"QCNN su4, 4 qubits"``."""
        return self.ansatz.describe()

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
        shapes = self.shapes
        draw = np.random.default_rng(seed).normal(0.0, ANGLE_SPREAD, self.angles)
        return {
            "angles": draw.astype(np.float32),
            "scale": np.full(shapes["scale"], FIRST_SCALE, dtype=np.float32),
            "bias": np.zeros(shapes["bias"], dtype=np.float32),
        }

    def flatten(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Join the arrays to one float64 vector of shape (P + 2 R,), in the order of `shapes`.

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
        """Split a vector of shape (P + 2 R,) into float32 arrays."""
        angles, readouts = self.angles, len(self.ansatz.readouts)
        parts = np.split(np.asarray(flat, dtype=np.float32), [angles, angles + readouts])
        return {name: part.copy() for name, part in zip(self.shapes, parts, strict=True)}

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> EncodedRows:
        """Encode a data set once.

        Parameters
        ----------
        features : numpy.ndarray, shape (rows, n)
            Projected features in radians.
        step_rows : int, optional
            Rows of a step where that is not all of them: how best to encode depends on it.

        Returns
        -------
        EncodedRows
            The encoded rows, in the engine's own form.

        Raises
        ------
        DataError
            If there are no rows, not n columns, or a number is not finite.
        """
        check_features(features, self.ansatz.n_qubits)
        return self.engine.prepare(features, step_rows)

    def logits_tensor(self, theta: Tensor, encoded: EncodedRows) -> Tensor:
        """Logits as a differentiable tensor.

        Parameters
        ----------
        theta : torch.Tensor, shape (P + 2 R,)
            All parameters in the order of `shapes`.
        encoded : EncodedRows
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, C)
            The logits.
        """
        scale, bias = theta[self.angles :].chunk(2)
        return readout_logits(self.expectations(theta[: self.angles], encoded), scale, bias)

    def expectations(self, weights: Tensor, encoded: EncodedRows) -> Tensor:
        """Return the read-outs' expectations, shape (rows, R), differentiable in weights (P,)."""
        return self.engine.expectations(self.ansatz.slot_values(weights), encoded)

    def logits(self, parameters: Mapping[str, np.ndarray], encoded: EncodedRows) -> np.ndarray:
        """Logits of encoded rows, float64, shape (rows, C)."""
        flat = self.flatten(parameters)
        if isinstance(self.engine, PauliEngine):  # nothing here needs torch
            slots = self.ansatz.slot_values(flat[None, : self.angles])
            scale, bias = np.split(flat[self.angles :], 2)
            logits = scale * self.engine.evaluate(slots, encoded)[0] + bias
            return logits if logits.shape[1] > 1 else np.pad(logits, ((0, 0), (1, 0)))
        import torch

        with torch.no_grad():
            theta = torch.as_tensor(flat, dtype=self.engine.dtype, device=self.engine.device)
            values = self.logits_tensor(theta, encoded).double().cpu().numpy()
        return np.asarray(values)

    def probabilities(
        self, parameters: Mapping[str, np.ndarray], encoded: EncodedRows
    ) -> np.ndarray:
        """Class probabilities of encoded rows, float64, shape (rows, C), rows summing to one."""
        logits = self.logits(parameters, encoded)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def draw(self) -> str:
        """Draw the circuit as SVG text."""
        from quantum.circuit.drawing import draw_svg

        return draw_svg(self.ansatz)


def build_classifier(
    settings: QuantumSettings, classes: int, host: Host | None = None
) -> Classifier:
    """Build a classifier.

    Parameters
    ----------
    settings : QuantumSettings
        The `quantum` section. ``threads`` is the caller's business (`torch.set_num_threads`).
    classes : int
        Number of classes C >= 2.
    host : Host, optional
        Where a device's engine runs; None: its defaults.

    Returns
    -------
    Classifier
        Ready to prepare data.

    Raises
    ------
    SettingsError
        Too few qubits for the classes.
    BackendError
        The backend is unknown or cannot be had.
    """
    ansatz = build_ansatz(settings, classes)
    return Classifier(ansatz, build_engine(ansatz, settings, host), classes)


def readout_logits(z: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Turn expectations into logits.

    Parameters
    ----------
    z : torch.Tensor, shape (rows, R)
        Expectations in [-1, 1].
    scale, bias : torch.Tensor, shape (R,)
        Read-out parameters.

    Returns
    -------
    torch.Tensor, shape (rows, C)
        C = 2 if R = 1 (the first logit is zero), else R.
    """
    import torch

    logits = scale * z + bias
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def check_features(features: np.ndarray, n_qubits: int) -> None:
    """Refuse features that the circuit cannot encode.

    Raises
    ------
    DataError
        If there are no rows, not n columns, or a number is not finite.
    """
    shape = np.shape(features)
    if len(shape) != 2 or shape[0] == 0 or shape[1] != n_qubits:
        raise DataError(
            f"features of shape {shape}",
            f"(rows, {n_qubits}) with at least one row, one column per qubit",
            "project the features to quantum.qubits columns",
        )
    if not np.isfinite(features).all():
        raise DataError(
            f"{int((~np.isfinite(features)).sum())} feature(s) that are not finite",
            "finite numbers",
            "look for missing values in the data",
        )
