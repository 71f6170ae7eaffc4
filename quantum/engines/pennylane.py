"""Any PennyLane device by name, as a QNode of the traced circuit.

Slow and plain: also a second implementation that the exact engine is tested against. Whatever a
plugin raises becomes one clear error.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pennylane as qml
import torch
from pennylane.operation import Channel, Operator
from pennylane.wires import Wires
from torch import Tensor

from core import (
    NOISELESS,
    RUN_DECIDES,
    BackendError,
    Noise,
    Option,
    UserError,
    derive_seed,
    short_message,
)
from quantum.circuit import Circuit
from quantum.circuit.gates import gates_of
from quantum.circuit.to_pennylane import observable, operations
from quantum.engines.base import EncodedRows, FeatureRows

NO_OPTIONS: Mapping[str, Option] = MappingProxyType({})
PLUGINS = {
    "lightning.gpu": "pennylane-lightning[gpu]",
    "lightning.kokkos": "pennylane-lightning[kokkos]",
    "lightning.amdgpu": "pennylane-lightning[amdgpu]",
    "lightning.tensor": "pennylane-lightning[tensor]",
    "lightning.": "pennylane-lightning",
    "qiskit.": "pennylane-qiskit",
    "cirq.": "PennyLane-Cirq",
    "braket.": "amazon-braket-pennylane-plugin",
    "ionq.": "PennyLane-IonQ",
    "qulacs.": "pennylane-qulacs",
    "rigetti.": "pennylane-rigetti",
}
"""Packages of well-known devices: whole names first, then how a family's names start."""


class PennylaneEngine:
    """A QNode on a PennyLane device, rows broadcast, gradients as the device offers.

    Under torch, PennyLane computes with 32-bit numbers in places (fixed gates of default.mixed,
    values of lightning): these devices agree with the exact engine to about 1e-7.

    Parameters
    ----------
    ansatz : Circuit
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
        ansatz: Circuit,
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
        with plugin_errors(device_name):
            tapes = _device_tapes(build_qnode(ansatz, device, shots=shots), ansatz)
        self.shots = next((tape.shots.total_shots or 0 for tape in tapes), 0)
        self.repeatable = not self.shots or takes_seed(device_name, device)
        self._qnode = build_qnode(ansatz, device, noise, self.shots)
        if noise:
            self._check_noise()
        with plugin_errors(device_name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            method = qml.workflow.get_best_diff_method(self._qnode)(*_probe(ansatz))
        self.gradient = str(method)

    @property
    def error(self) -> float:
        """Estimated probability that some channel or read-out errs: they count as independent."""
        noise = self._noise
        kept = math.prod(1 - p for p in astuple(replace(noise, readout=0.0)))
        places = sum(len(gate.wires) for gate in gates_of(self.ansatz.blocks))
        return float(1 - kept**places * (1 - noise.readout) ** len(self.ansatz.readout_wires))

    def begin(self, label: str) -> None:
        """Seed the shots by what they are for: the same label, the same shots in any process."""
        if self.shots:
            seed = derive_seed(self._seed, "shots", label)
            device = open_device(self._device_name, self.ansatz.n_qubits, self._options, seed)
            self._qnode = build_qnode(self.ansatz, device, self._noise, self.shots)

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> FeatureRows:
        """Keep features of shape (rows, n) as a float64 tensor, whatever the rows of a step."""
        return FeatureRows.of(features)

    def expectations(self, angles: Tensor, encoded: EncodedRows) -> Tensor:
        """Return the read-outs' expectations, shape (rows, R), differentiable in slots (S,).

        Raises
        ------
        BackendError
            If the device fails.
        """
        rows = cast(FeatureRows, encoded)
        with plugin_errors(self._device_name):
            if self.ansatz.mixed and self.gradient != "backprop":
                # PennyLane shifts no angle that is another for each row of a batch.
                each = [torch.stack(self._qnode(angles, row)) for row in rows.features]
                return torch.stack(each).to(self.dtype)
            values = self._qnode(angles, rows.features)
        return torch.stack([torch.as_tensor(v).reshape(-1) for v in values], dim=1).to(self.dtype)

    def _check_noise(self) -> None:
        """Let the device check the noisy circuit, whose gates alone it is known to run."""
        try:
            _device_tapes(self._qnode, self.ansatz)
        except Exception as error:  # a plugin may raise anything at all
            raise BackendError(
                f"quantum.noise = '{self._noise}' with quantum.backend = '{self.name}', which "
                "takes no noise channels",
                "a device of mixed states, for instance 'pennylane:default.mixed'",
                "change quantum.backend or remove quantum.noise",
            ) from error


def build_qnode(ansatz: Circuit, device: Any, noise: Noise = NOISELESS, shots: int = 0) -> Any:
    """QNode (slots (S,), features (rows, n)) -> R expectations of shape (rows,).

    Parameters
    ----------
    ansatz : Circuit
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
    measured = [observable(readout, wires) for readout in ansatz.readouts]

    def circuit(angles: Tensor, features: Tensor) -> list[Any]:
        operations(ansatz.blocks, wires, angles, features)
        if noise.readout:
            for wire in ansatz.readout_wires:
                qml.BitFlip(noise.readout, wires=wire)
        return [qml.expval(one) for one in measured]

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


def _device_tapes(qnode: Any, ansatz: Circuit) -> Any:
    """Return the circuits as the device would run them for one row, checked but not executed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Devices of another kind (qutrits, photons), and PennyLane's older devices when they meet
        # noise channels, only warn here, and fail when they execute.
        warnings.filterwarnings("error", message=".*does not define a decomposition")
        return qml.workflow.construct_batch(qnode, level="device")(*_probe(ansatz))[0]


def _probe(ansatz: Circuit) -> tuple[Tensor, Tensor]:
    """Slots and one row of features, all zero."""
    angles = torch.zeros(ansatz.slots, dtype=torch.float64, requires_grad=True)
    return angles, torch.zeros(1, ansatz.n_qubits, dtype=torch.float64)


def open_device(
    name: str, n_qubits: int, options: Mapping[str, Option] = NO_OPTIONS, seed: int = 0
) -> Any:
    """Open a PennyLane device.

    Parameters
    ----------
    name : str
        PennyLane's name of the device.
    n_qubits : int
        Number of wires.
    options : mapping of str to bool, int, float or str
        Further arguments of the device; a text under a key that ends in ``dtype`` names a NumPy
        type.
    seed : int
        Seeds the device's shots, where it takes a seed.

    Returns
    -------
    pennylane.devices.Device
        The open device.

    Raises
    ------
    BackendError
        If there is no such device, it does not take an option, or it does not open.
    """
    find_device(name)
    signature = _signature(name)
    check_options(name, options, signature)
    with plugin_errors(name):
        arguments: dict[str, Any] = {
            key: np.dtype(value).type if key.endswith("dtype") and isinstance(value, str) else value
            for key, value in options.items()
        }
        if "seed" in signature:
            arguments["seed"] = seed
        device = qml.device(name, wires=n_qubits, **arguments)
        _seed_runs(_qiskit_backend(device), seed)
        return device


def _signature(name: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a device's constructor."""
    with plugin_errors(name):
        return inspect.signature(qml.plugin_devices[name].load()).parameters


def takes_seed(name: str, device: Any) -> bool:
    """Say whether `open_device` could seed a device's shots, so that a run can be repeated."""
    return "seed" in _signature(name) or _qiskit_backend(device) is not None


def _qiskit_backend(device: Any) -> Any:
    """Return the simulator of Qiskit behind a device, if it takes seeds; None for other devices."""
    backend = getattr(getattr(device, "target_device", device), "backend", None)
    return backend if hasattr(getattr(backend, "options", None), "seed_simulator") else None


def _seed_runs(backend: Any, seed: int) -> None:
    """Seed each of a Qiskit simulator's runs again: an option would repeat one run's shots."""
    if backend is None:
        return
    run, numbers = backend.run, itertools.count()

    def seeded(*circuits: Any, **options: Any) -> Any:
        drawn = derive_seed(seed, "run", next(numbers))
        return run(*circuits, **{**options, "seed_simulator": drawn})

    backend.run = seeded


def find_device(name: str) -> None:
    """Refuse a device that no installed plugin brings.

    Raises
    ------
    BackendError
        With those that are installed, the likeliest remedy first: the launcher cuts long messages.
    """
    installed = sorted(qml.plugin_devices)
    if name in installed:
        return
    family = f"{name.partition('.')[0]}."
    absent = not any(other.startswith(family) for other in installed)
    package = PLUGINS.get(name) or (PLUGINS.get(family) if absent else None)
    near = difflib.get_close_matches(name, installed, n=1)
    hint = f" (did you mean 'pennylane:{near[0]}'?)" if near else ""
    if package:
        hint = f" (pip install '{package}' brings it)"
    raise BackendError(
        f"quantum.backend = 'pennylane:{name}', no such device is installed{hint}",
        ", ".join(installed),
        "change quantum.backend or install the device's plugin",
    )


def check_options(
    name: str, options: Mapping[str, Option], signature: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse options that the device does not take.

    A device that hands on whatever it is given (``**kwargs``) checks them itself, or does not.

    Raises
    ------
    BackendError
        With the options that the device takes.
    """
    passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values())
    takes = sorted(
        key
        for key, parameter in signature.items()
        if key not in RUN_DECIDES and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )
    unknown = [key for key in options if key in RUN_DECIDES]
    if not unknown and not passes_on:
        unknown = [key for key in options if key not in takes]
    if unknown:
        raise BackendError(
            f"quantum.device_options sets {', '.join(unknown)}, not an option of "
            f"'pennylane:{name}'",
            ", ".join(takes) or "no options",
            "change quantum.device_options",
        )


@contextmanager
def plugin_errors(name: str) -> Iterator[None]:
    """Turn whatever a plugin raises in this context into a `BackendError` of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a plugin may raise anything at all
        raise BackendError(
            f"quantum.backend = 'pennylane:{name}' cannot be used ({short_message(error)})",
            "a qubit device that runs with quantum.device_options, for instance "
            "'pennylane:default.qubit'",
            "change quantum.backend or quantum.device_options",
        ) from error
