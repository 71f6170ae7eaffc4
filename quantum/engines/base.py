"""What an engine is, and how one is chosen by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from core import (
    BackendError,
    HardwareSettings,
    QuantumSettings,
    explain,
    is_shot_based,
    parse_device_options,
    parse_noise,
    store_root,
)
from quantum.ansatz.circuits import QCNN, VQC

if TYPE_CHECKING:
    import torch

    from quantum.engines.devices import Usage


class Prepared(Protocol):
    """A data set in the form its engine computes with: encoded once, used in every step."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def take(self, indices: torch.Tensor) -> Prepared:
        """Return the rows at ``indices`` (int64), for mini-batches."""


class Engine(Protocol):
    """Computes the read-outs' expectations.

    Attributes
    ----------
    name : str
        The backend's name.
    dtype : torch.dtype
        Real type of angles and expectations.
    device : torch.device
        Where angles and expectations live.
    """

    name: str
    dtype: torch.dtype
    device: torch.device

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> Prepared:
        """Encode features of shape (rows, n), to be used so many rows at a time (None: all)."""

    def expectations(self, angles: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """<Z> of each read-out, shape (rows, R), differentiable in angles of shape (P,)."""


@dataclass(frozen=True)
class Host:
    """What a device's engine needs to know besides the circuit.

    Attributes
    ----------
    hardware : HardwareSettings
        Shots, mitigation, budgets.
    seed : int
        Seed of simulated shots and of waiting times.
    layout_seed : int
        Seed of the transpiler: the same for all clients, who then share circuits.
    timeout : float
        Longest wait for a job, seconds.
    store : Path
        Folder of transpiled circuits and of the book of jobs.
    run : str
        The federated run that the jobs belong to; budgets count by run.
    estimate : bool
        Whether nothing will be run: without an account a snapshot then stands for a named device.
    """

    hardware: HardwareSettings = field(default_factory=HardwareSettings)
    seed: int = 0
    layout_seed: int = 0
    timeout: float = 3600.0
    store: Path = field(default_factory=store_root)
    run: str = ""
    estimate: bool = False


@runtime_checkable
class Labelled(Protocol):
    """An engine whose shots depend on what they are for."""

    def begin(self, label: str) -> None:
        """Say what the next circuits are for; the same label, the same shots."""


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine whose circuits are jobs of a device: counted shots, costs, no derivatives.

    Attributes
    ----------
    usage : Usage
        Jobs, circuits, shots and seconds so far.
    told : Usage
        What of it has been reported.
    shots : int
        Shots of a circuit.
    """

    usage: Usage
    told: Usage
    shots: int

    @property
    def device_name(self) -> str:
        """The device's own name."""

    @property
    def two_qubit_gates(self) -> int:
        """Two-qubit gates of one circuit after transpiling."""

    def evaluate(self, points: np.ndarray, prepared: Prepared) -> np.ndarray:
        """<Z> at each of K points (K, P), shape (K, rows, R), in one job."""

    def quote(self, circuits: int) -> tuple[int, float]:
        """Return the jobs that so many circuits would be, and their QPU seconds, estimated."""

    def reserve(self, *circuits: int, overdraw: bool = False) -> None:
        """Let budgets keep back later jobs of so many circuits each, until told otherwise."""

    def begin(self, label: str) -> None:
        """Say what the next jobs are for; a repeated order collects the jobs of the first."""

    def close(self) -> None:
        """End a session or batch."""


def evaluate_points(engine: Engine, points: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Compute the expectations at several points.

    Parameters
    ----------
    engine : Engine
        A device's engine does all points in one job, another one after the other.
    points : numpy.ndarray, shape (K, P)
        Angles in radians.
    prepared : Prepared
        The rows.

    Returns
    -------
    numpy.ndarray, float64, shape (K, rows, R)
        <Z> of each read-out.
    """
    import torch

    if isinstance(engine, DeviceEngine):
        return engine.evaluate(points, prepared)
    with torch.no_grad():
        each = [
            engine.expectations(
                torch.as_tensor(p, dtype=engine.dtype, device=engine.device), prepared
            )
            for p in points
        ]
    return torch.stack(each).double().cpu().numpy()


def build_engine(
    ansatz: QCNN | VQC,
    settings: QuantumSettings,
    host: Host | None = None,
) -> Engine:
    """Build the engine that ``settings.backend`` names.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    settings : QuantumSettings
        The `quantum` section, one backend.
    host : Host, optional
        Where it runs; None: with default hardware settings, in the user's cache folder.

    Returns
    -------
    Engine
        `quantum.engines.exact.engine.ExactEngine`, `quantum.engines.pennylane.engine.PennylaneEngine` or
        `quantum.engines.devices.CircuitEngine`.

    Raises
    ------
    BackendError
        If the backend is unknown, or cannot be had on this machine.
    SettingsError
        If the device's options or its noise are not written as they should be.
    """
    family, _, name = settings.backend.partition(":")
    if settings.backend == "exact":
        from quantum.engines.exact.engine import ExactEngine

        return ExactEngine(ansatz, settings.precision, settings.device)
    if family == "pennylane" and name:
        from quantum.engines.pennylane.engine import PennylaneEngine

        host = host or Host()
        options = parse_device_options(settings.device_options)
        noise = parse_noise(settings.noise)
        return PennylaneEngine(ansatz, name, options, noise, host.hardware.shots, host.seed)
    if is_shot_based(settings.backend):
        from quantum.engines.devices import open_engine

        return open_engine(ansatz, settings, host or Host())
    raise BackendError(
        explain(
            f"quantum.backend = {settings.backend!r}",
            "exact, pennylane:<device>, aer, aer:<backend>, fake:<backend> or ibm:<backend>",
            "change quantum.backend",
        )
    )


def check_backend(ansatz: QCNN | VQC, settings: QuantumSettings, host: Host | None = None) -> None:
    """Refuse a backend that `build_engine` could not open here; nothing is transpiled.

    Parameters
    ----------
    ansatz, settings, host
        As `build_engine` takes them.

    Raises
    ------
    BackendError, SettingsError
        As `build_engine`.
    """
    if is_shot_based(settings.backend):
        from quantum.engines.devices import check_device

        check_device(ansatz, settings, host or Host())
    elif settings.backend != "exact" or settings.device == "cuda":
        family, _, name = settings.backend.partition(":")
        if family == "pennylane":  # told before torch is loaded
            from quantum.engines.pennylane.device import find_device

            find_device(name)
        build_engine(ansatz, settings, host)
