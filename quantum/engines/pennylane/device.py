"""Finding and opening a PennyLane device by name, with one clear error when it does not serve."""

from __future__ import annotations

import difflib
import inspect
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import pennylane as qml

from core import RUN_DECIDES, BackendError, Noise, Option, UserError, derive_seed, short_message

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
    with blaming(name):
        signature = inspect.signature(qml.plugin_devices[name].load()).parameters
    check_options(name, options, signature)
    with blaming(name):
        arguments = {key: argument(key, value) for key, value in options.items()}
        if "seed" in signature:
            arguments["seed"] = seed
        device = qml.device(name, wires=n_qubits, **arguments)
        _seed_runs(_qiskit_backend(device), seed)
        return device


def takes_seed(name: str, device: Any) -> bool:
    """Say whether `open_device` could seed a device's shots, so that a run can be repeated."""
    with blaming(name):
        signature = inspect.signature(qml.plugin_devices[name].load()).parameters
    return "seed" in signature or _qiskit_backend(device) is not None


def _qiskit_backend(device: Any) -> Any:
    """Return the simulator of Qiskit behind a device, if it takes seeds; None for other devices."""
    backend = getattr(getattr(device, "target_device", device), "backend", None)
    return backend if hasattr(getattr(backend, "options", None), "seed_simulator") else None


def _seed_runs(backend: Any, seed: int) -> None:
    """Seed each of a Qiskit simulator's runs anew: an option would repeat one run's shots."""
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
        With those that are installed.
    """
    installed = sorted(qml.plugin_devices)
    if name not in installed:
        raise not_installed(name, installed)


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
    ours = [key for key in options if key in RUN_DECIDES]
    takes = sorted(
        key
        for key, parameter in signature.items()
        if key not in RUN_DECIDES and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )
    hands_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values())
    unknown = ours or [key for key in options if key not in takes and not hands_on]
    if unknown:
        raise BackendError(
            f"quantum.device_options sets {', '.join(unknown)}, not an option of "
            f"'pennylane:{name}'",
            ", ".join(takes) or "no options",
            "change quantum.device_options",
        )


def argument(key: str, value: Option) -> Any:
    """Turn an option into the device's argument; types of numbers are written as their names."""
    if key.endswith("dtype") and isinstance(value, str):
        return np.dtype(value).type
    return value


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Turn whatever a plugin raises in this context into a `BackendError` of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a plugin may raise anything at all
        raise unusable(name, error) from error


def not_installed(name: str, installed: list[str]) -> BackendError:
    """Build the error of a device that is not there.

    The likeliest remedy comes first: the launcher cuts long messages.
    """
    whole = next((package for start, package in PLUGINS.items() if name == start), None)
    family = f"{name.partition('.')[0]}."
    absent = not any(other.startswith(family) for other in installed)
    package = whole or (PLUGINS.get(family) if absent else None)
    near = difflib.get_close_matches(name, installed, n=1)
    hint = ""
    if package:
        hint = f" (pip install '{package}' brings it)"
    elif near:
        hint = f" (did you mean 'pennylane:{near[0]}'?)"
    return BackendError(
        f"quantum.backend = 'pennylane:{name}', no such device is installed{hint}",
        ", ".join(installed),
        "change quantum.backend or install the device's plugin",
    )


def no_channels(name: str, noise: Noise) -> BackendError:
    """Build the error of noise on a device that knows no noise channels."""
    return BackendError(
        f"quantum.noise = '{noise}' with quantum.backend = 'pennylane:{name}', which takes no "
        "noise channels",
        "a device of mixed states, for instance 'pennylane:default.mixed'",
        "change quantum.backend or remove quantum.noise",
    )


def unusable(name: str, error: Exception) -> BackendError:
    """Build the error of a device that is installed but does not serve."""
    return BackendError(
        f"quantum.backend = 'pennylane:{name}' cannot be used ({short_message(error)})",
        "a qubit device that runs with quantum.device_options, for instance "
        "'pennylane:default.qubit'",
        "change quantum.backend or quantum.device_options",
    )
