"""The quantum classifier: an ansatz, an engine, and the head that turns z into classes.

All that is measured are products of Z, which commute, so one circuit serves them all
(`quantum.head` says what follows).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from core import DataError, QuantumSettings
from quantum.circuit import Circuit, build_ansatz
from quantum.engines.base import EncodedRows, Engine, Host, is_device
from quantum.engines.factory import build_engine
from quantum.engines.pauli import PauliEngine
from quantum.head import Head

if TYPE_CHECKING:
    from torch import Tensor

ANGLE_SPREAD = 0.1  # radians: near the identity, where gradients do not vanish with size


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
    linear : bool
        Whether the head is linear: `quantum.readout` is not ``per-class``.
    """

    ansatz: Circuit
    engine: Engine
    classes: int
    linear: bool = False

    @cached_property
    def head(self) -> Head:
        """What turns expectations into logits."""
        return Head(len(self.ansatz.readouts), self.classes, self.linear)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of "angles" (P,) and of the head's arrays, in the order of the flat vector."""
        return {"angles": (self.angles,), **self.head.shapes}

    @property
    def angles(self) -> int:
        """Number of trainable weights P of the ansatz."""
        return self.ansatz.angles

    @property
    def two_qubit_gates(self) -> int:
        """Two-qubit gates per circuit: a device's after transpiling, else CNOTs on any pair."""
        engine = self.engine
        return (engine if is_device(engine) else self.ansatz).two_qubit_gates

    @property
    def error(self) -> float:
        """Estimated probability that some gate or read-out of one circuit fails."""
        return float(getattr(self.engine, "error", 0.0))

    def describe(self) -> str:
        """Return for instance ``"QCNN su4, 4 qubits"``."""
        return self.ansatz.describe()

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """Draw initial parameters.

        Angles are normal with standard deviation 0.1 rad: the circuit starts near fixed gates,
        where gradients do not vanish with the number of qubits as they do at random angles
        (barren plateaus). The head starts as `Head.initial` says.

        Parameters
        ----------
        seed : int
            Same seed, same numbers.

        Returns
        -------
        dict of numpy.ndarray
            float32 arrays of `shapes`.
        """
        rng = np.random.default_rng(seed)
        draw = rng.normal(0.0, ANGLE_SPREAD, self.angles)
        return {"angles": draw.astype(np.float32), **self.head.initial(rng)}

    def flatten(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Join the arrays to one float64 vector of shape (P + H,), in the order of `shapes`.

        Raises
        ------
        ValueError
            If names or shapes are not `shapes`, or a number is not finite.
        """
        given = {name: np.shape(value) for name, value in parameters.items()}
        if given != self.shapes:
            raise ValueError(f"parameters have shapes {given}; the model's are {self.shapes}.")
        arrays = [np.ravel(parameters[name]).astype(np.float64) for name in self.shapes]
        flat = np.concatenate(arrays)
        if not np.isfinite(flat).all():
            raise ValueError("parameters hold numbers that are not finite.")
        return flat

    def unflatten(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Split a vector of shape (P + H,) into float32 arrays."""
        shapes = self.shapes
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
        parts = np.split(np.asarray(flat, dtype=np.float32), ends[:-1])
        named = zip(shapes.items(), parts, strict=True)
        return {name: part.reshape(shape).copy() for (name, shape), part in named}

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
        theta : torch.Tensor, shape (P + H,)
            All parameters in the order of `shapes`.
        encoded : EncodedRows
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, C)
            The logits.
        """
        z = self.expectations(theta[: self.angles], encoded)
        logits: Tensor = self.head.logits(z, theta[self.angles :])
        return logits

    def expectations(self, weights: Tensor, encoded: EncodedRows) -> Tensor:
        """Return the expectations measured, shape (rows, K), differentiable in weights (P,)."""
        return self.engine.expectations(self.ansatz.slot_values(weights), encoded)

    def logits(self, parameters: Mapping[str, np.ndarray], encoded: EncodedRows) -> np.ndarray:
        """Logits of encoded rows, float64, shape (rows, C)."""
        flat = self.flatten(parameters)
        if isinstance(self.engine, PauliEngine):  # nothing here needs torch
            slots = self.ansatz.slot_values(flat[None, : self.angles])
            z = self.engine.evaluate(slots, encoded)[0]
            return np.asarray(self.head.logits(z, flat[self.angles :]))
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

    def shifted(
        self, parameters: Mapping[str, np.ndarray], shift: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return parameters whose logits are higher by ``shift`` (C,), see `Head.shifted`."""
        return self.head.shifted(parameters, shift)

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
    engine = build_engine(ansatz, settings, host)
    return Classifier(ansatz, engine, classes, settings.readout != "per-class")


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
