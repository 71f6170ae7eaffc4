"""Any PennyLane device by name, as a QNode of the ansatz's templates.

Slow and obvious: also the twin that the exact engine is tested against.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pennylane as qml
import torch

from federation import BackendError, explain
from quantum.ansatz import QCNN, VQC
from quantum.engines import Prepared
from quantum.templates import FeatureEncoding, ansatz_template


@dataclass(frozen=True)
class FeatureRows:
    """A prepared data set: the features themselves, shape (rows, n), float64."""

    features: torch.Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.features)

    def take(self, indices: torch.Tensor) -> FeatureRows:
        """Return the rows at ``indices``."""
        return FeatureRows(self.features[indices])


class PennylaneEngine:
    """A QNode on a PennyLane device, rows broadcast, gradients as the device offers.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    device_name : str
        PennyLane's name of the device, for instance ``"default.qubit"``.

    Raises
    ------
    BackendError
        If the device is not installed or cannot run the circuit.
    """

    def __init__(self, ansatz: QCNN | VQC, device_name: str) -> None:
        self.name = f"pennylane:{device_name}"
        self.dtype = torch.float64
        self.device = torch.device("cpu")
        self.ansatz = ansatz
        self._qnode = build_qnode(ansatz, open_device(device_name, ansatz.n_qubits))
        check_runs(device_name, self._qnode, ansatz)

    def prepare(self, features: np.ndarray) -> FeatureRows:
        """Keep features of shape (rows, n) as a float64 tensor."""
        return FeatureRows(torch.from_numpy(np.array(features, dtype=np.float64)))

    def expectations(self, angles: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """<Z> of each read-out, shape (rows, R), differentiable in angles of shape (P,)."""
        rows = cast(FeatureRows, prepared)
        values = self._qnode(angles, rows.features)
        return torch.stack([torch.as_tensor(v).reshape(-1) for v in values], dim=1).to(self.dtype)


def build_qnode(ansatz: QCNN | VQC, device: Any) -> Any:
    """QNode (angles (P,), features (rows, n)) -> R expectations of shape (rows,)."""
    wires = range(ansatz.n_qubits)

    def circuit(angles: torch.Tensor, features: torch.Tensor) -> list[Any]:
        FeatureEncoding(features, wires, ansatz)
        ansatz_template(ansatz, angles, wires)
        return [qml.expval(qml.Z(wire)) for wire in ansatz.readout_wires]

    return qml.QNode(circuit, device, interface="torch", diff_method="best")


def open_device(name: str, n_qubits: int) -> Any:
    """Open a PennyLane device.

    Raises
    ------
    BackendError
        If there is no such device, or it does not open.
    """
    installed = sorted(qml.plugin_devices)
    if name not in installed:
        raise BackendError(
            explain(
                f"quantum.backend = 'pennylane:{name}', no such device is installed",
                ", ".join(installed),
                "change quantum.backend or install the device's plugin",
            )
        )
    try:
        return qml.device(name, wires=n_qubits)
    except Exception as error:  # a plugin may raise anything at all
        raise unusable(name, error) from error


def check_runs(name: str, qnode: Any, ansatz: QCNN | VQC) -> None:
    """Let the device check the circuit without executing it.

    Raises
    ------
    BackendError
        If the device does not know the circuit's gates, for instance one of qutrits.
    """
    angles = torch.zeros(ansatz.angles, dtype=torch.float64, requires_grad=True)
    features = torch.zeros(1, ansatz.n_qubits, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Devices of another kind (qutrits, photons) only warn here, and fail when they execute.
        warnings.filterwarnings("error", message=".*does not define a decomposition")
        try:
            qml.workflow.construct_batch(qnode, level="device")(angles, features)
        except Exception as error:  # a plugin may raise anything at all
            raise unusable(name, error) from error


def unusable(name: str, error: Exception) -> BackendError:
    """Build the error of a device that is installed but does not serve."""
    reason = " ".join(str(error).split())[:200]
    return BackendError(
        explain(
            f"quantum.backend = 'pennylane:{name}' cannot be used ({reason})",
            "a qubit device that opens by its name alone, for instance 'pennylane:default.qubit'",
            "change quantum.backend",
        )
    )
