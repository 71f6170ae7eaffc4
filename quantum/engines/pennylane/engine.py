"""Any PennyLane device by name, as a QNode of the ansatz's templates.

Slow and obvious: also the twin that the exact engine is tested against.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pennylane as qml
import torch
from pennylane.operation import Channel, Operator
from pennylane.wires import Wires

from core import NOISELESS, Noise, Option, derive_seed
from quantum.ansatz.circuits import QCNN, VQC
from quantum.ansatz.templates import circuit_templates, operations
from quantum.engines.base import EncodedRows, FeatureRows
from quantum.engines.pennylane.device import (
    NO_OPTIONS,
    blaming,
    no_channels,
    open_device,
    takes_seed,
)


class PennylaneEngine:
    """A QNode on a PennyLane device, rows broadcast, gradients as the device offers.

    Under torch, PennyLane computes with 32-bit numbers in places (fixed gates of default.mixed,
    values of lightning): these devices agree with the exact engine to about 1e-7.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    device_name : str
        PennyLane's name of the device, for instance ``"default.qubit"``.
    options : mapping of str to bool, int, float or str
        The device's own arguments, see `core.parse_device_options`.
    noise : Noise
        Channels after gates and before the measurement.
    shots : int
        Shots of each circuit; 0: exact, or the device's own number if it can only sample.
    seed : int
        Seeds the shots, where the device takes a seed.

    Attributes
    ----------
    gradient : str
        How the device's gradients are had, PennyLane's choice of the best that it offers:
        "backprop", "adjoint", "device", or "parameter-shift", the one for finite shots.
    shots : int
        Shots that each circuit is run with; 0: exact.
    repeatable : bool
        Whether the same seed gives the same numbers: not where shots take no seed.

    Raises
    ------
    BackendError
        If the device is not installed, does not open with these options, or cannot run the
        circuit or its noise.
    """

    def __init__(
        self,
        ansatz: QCNN | VQC,
        device_name: str,
        options: Mapping[str, Option] = NO_OPTIONS,
        noise: Noise = NOISELESS,
        shots: int = 0,
        seed: int = 0,
    ) -> None:
        self.name = f"pennylane:{device_name}"
        self.dtype = torch.float64
        self.device = torch.device("cpu")
        self.ansatz = ansatz
        self._device_name = device_name
        self._options, self._noise, self._seed = options, noise, seed
        device = open_device(device_name, ansatz.n_qubits, options, seed)
        self.shots = check_runs(device_name, build_qnode(ansatz, device, shots=shots), ansatz)
        self.repeatable = not self.shots or takes_seed(device_name, device)
        self._qnode = build_qnode(ansatz, device, noise, self.shots)
        if noise:
            check_takes(device_name, self._qnode, ansatz, noise)
        self.gradient = chosen_gradient(device_name, self._qnode, ansatz)

    def begin(self, label: str) -> None:
        """Seed the shots by what they are for: the same label, the same shots in any process."""
        if self.shots:
            seed = derive_seed(self._seed, "shots", label)
            device = open_device(self._device_name, self.ansatz.n_qubits, self._options, seed)
            self._qnode = build_qnode(self.ansatz, device, self._noise, self.shots)

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> FeatureRows:
        """Keep features of shape (rows, n) as a float64 tensor, whatever the rows of a step."""
        return FeatureRows.of(features)

    def expectations(self, angles: torch.Tensor, encoded: EncodedRows) -> torch.Tensor:
        """<Z> of each read-out, shape (rows, R), differentiable in angles of shape (P,).

        Raises
        ------
        BackendError
            If the device fails.
        """
        rows = cast(FeatureRows, encoded)
        with blaming(self._device_name):
            values = self._qnode(angles, rows.features)
        return torch.stack([torch.as_tensor(v).reshape(-1) for v in values], dim=1).to(self.dtype)


def build_qnode(ansatz: QCNN | VQC, device: Any, noise: Noise = NOISELESS, shots: int = 0) -> Any:
    """QNode (angles (P,), features (rows, n)) -> R expectations of shape (rows,).

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    device : pennylane.devices.Device
        What runs it.
    noise : Noise
        Channels in the circuit.
    shots : int
        Shots of each circuit; 0: the device's own way.

    Returns
    -------
    pennylane.QNode
        Differentiable in torch.
    """
    wires = Wires(range(ansatz.n_qubits))

    def circuit(angles: torch.Tensor, features: torch.Tensor) -> list[Any]:
        if noise:  # gate by gate: `add_noise` would take a template for one gate
            operations(ansatz.encoding, wires, features=features)
            operations(ansatz.layers, wires, angles, features)
        else:
            circuit_templates(ansatz, angles, features, wires)
        if noise.readout:
            for wire in ansatz.readout_wires:
                qml.BitFlip(noise.readout, wires=wire)
        return [qml.expval(qml.Z(wire)) for wire in ansatz.readout_wires]

    qnode = qml.QNode(circuit, device, interface="torch", diff_method="best")
    if shots:
        qnode = qml.set_shots(qnode, shots)
    return qml.add_noise(qnode, noise_model(noise)) if noise else qnode


def noise_model(noise: Noise) -> Any:
    """PennyLane's model of the gate channels.

    The read-out's channel is not in it: PennyLane would run a circuit of its own for each
    measurement, R in place of one.
    """
    kinds = {
        qml.DepolarizingChannel: noise.depolarizing,
        qml.AmplitudeDamping: noise.amplitude_damping,
        qml.PhaseDamping: noise.phase_damping,
        qml.BitFlip: noise.bit_flip,
        qml.PhaseFlip: noise.phase_flip,
    }

    def is_gate(operation: Operator) -> bool:
        return not isinstance(operation, Channel)

    def channels(operation: Operator, **_: Any) -> None:
        for wire in operation.wires:
            for kind, probability in kinds.items():
                if probability:
                    kind(probability, wires=wire)

    return qml.NoiseModel({qml.BooleanFn(is_gate): channels})


def check_runs(name: str, qnode: Any, ansatz: QCNN | VQC) -> int:
    """Let the device check the circuit without executing it.

    Returns
    -------
    int
        Shots that it would run the circuit with; 0: exact.

    Raises
    ------
    BackendError
        If the device does not know the circuit's gates, for instance one of qutrits.
    """
    with blaming(name):
        return next((tape.shots.total_shots or 0 for tape in _device_tapes(qnode, ansatz)), 0)


def check_takes(name: str, qnode: Any, ansatz: QCNN | VQC, noise: Noise) -> None:
    """Let the device check the noisy circuit, whose gates alone it is known to run.

    Raises
    ------
    BackendError
        If the device knows no noise channels.
    """
    try:
        _device_tapes(qnode, ansatz)
    except Exception as error:  # a plugin may raise anything at all
        raise no_channels(name, noise) from error


def chosen_gradient(name: str, qnode: Any, ansatz: QCNN | VQC) -> str:
    """Say which method of differentiation PennyLane takes on this device.

    Raises
    ------
    BackendError
        If it finds none.
    """
    with blaming(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = qml.workflow.get_best_diff_method(qnode)(*_probe(ansatz))
    return method if isinstance(method, str) else str(method)


def _device_tapes(qnode: Any, ansatz: QCNN | VQC) -> Any:
    """Return the circuits as the device would run them for one row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Devices of another kind (qutrits, photons), and PennyLane's older devices when they meet
        # noise channels, only warn here, and fail when they execute.
        warnings.filterwarnings("error", message=".*does not define a decomposition")
        return qml.workflow.construct_batch(qnode, level="device")(*_probe(ansatz))[0]


def _probe(ansatz: QCNN | VQC) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles and one row of features, all zero."""
    angles = torch.zeros(ansatz.angles, dtype=torch.float64, requires_grad=True)
    return angles, torch.zeros(1, ansatz.n_qubits, dtype=torch.float64)
