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
from quantum.ansatz.circuits import QCNN, VQC, build_ansatz
from quantum.engines.base import DeviceEngine, Engine, Host, Prepared
from quantum.engines.factory import build_engine
from quantum.parameters import ParameterSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Classifier:
    """A quantum classifier.

    Attributes
    ----------
    ansatz : QCNN or VQC
        The circuit.
    engine : Engine
        What computes it.
    classes : int
        Number of classes C.
    spec : ParameterSpec
        Names and shapes of its parameters.
    """

    ansatz: QCNN | VQC
    engine: Engine
    classes: int
    spec: ParameterSpec

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of "angles" (P,), "scale" (R,) and "bias" (R,); R = 1 if C == 2 else C."""
        return self.spec.shapes

    @property
    def angles(self) -> int:
        """Number of angles P."""
        return self.ansatz.angles

    @property
    def two_qubit_gates(self) -> int:
        """Two-qubit gates per circuit: a device's after transpiling, else CNOTs on any pair."""
        engine = self.engine
        return (engine if isinstance(engine, DeviceEngine) else self.ansatz).two_qubit_gates

    def describe(self) -> str:
        """Return for instance ``"QCNN su4, 4 qubits"``."""
        return self.ansatz.describe()

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """Draw initial parameters, see `ParameterSpec.initial`."""
        return self.spec.initial(seed)

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> Prepared:
        """Encode a data set once.

        Parameters
        ----------
        features : numpy.ndarray, shape (rows, n)
            Projected features in radians.
        step_rows : int, optional
            Rows of a step where that is not all of them: how best to encode depends on it.

        Returns
        -------
        Prepared
            The encoded rows, in the engine's own form.

        Raises
        ------
        DataError
            If there are no rows, not n columns, or a number is not finite.
        """
        check_features(features, self.ansatz.n_qubits)
        return self.engine.prepare(features, step_rows)

    def logits_tensor(self, theta: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """Logits as a differentiable tensor.

        Parameters
        ----------
        theta : torch.Tensor, shape (P + 2 R,)
            All parameters in the order of `shapes`.
        prepared : Prepared
            From `prepare`.

        Returns
        -------
        torch.Tensor, shape (rows, C)
            The logits.
        """
        p, r = self.spec.angles, self.spec.readouts
        angles, scale, bias = theta[:p], theta[p : p + r], theta[p + r :]
        return readout_logits(self.engine.expectations(angles, prepared), scale, bias)

    def logits(self, parameters: Mapping[str, np.ndarray], prepared: Prepared) -> np.ndarray:
        """Logits of encoded rows, float64, shape (rows, C)."""
        import torch

        flat = self.spec.flatten(parameters)
        with torch.no_grad():
            theta = torch.as_tensor(flat, dtype=self.engine.dtype, device=self.engine.device)
            values = self.logits_tensor(theta, prepared).double().cpu().numpy()
        return np.asarray(values)

    def probabilities(self, parameters: Mapping[str, np.ndarray], prepared: Prepared) -> np.ndarray:
        """Class probabilities of encoded rows, float64, shape (rows, C), rows summing to one."""
        logits = self.logits(parameters, prepared)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def draw(self) -> str:
        """Draw the circuit as SVG text."""
        from quantum.ansatz.drawing import draw_svg

        return draw_svg(self.ansatz)


def build_classifier(
    settings: QuantumSettings,
    classes: int,
    host: Host | None = None,
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
    spec = ParameterSpec(ansatz.angles, len(ansatz.readout_wires))
    engine = build_engine(ansatz, settings, host)
    return Classifier(ansatz, engine, classes, spec)


def readout_logits(z: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
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
