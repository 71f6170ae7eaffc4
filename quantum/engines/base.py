"""Interfaces of the engines, and the values that engines exchange with the rest."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

import numpy as np

from core import HardwareSettings, store_root

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class EncodedRows(Protocol):
    """A data set in its engine's own form: encoded once, used in every step."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def take(self, indices: Tensor) -> EncodedRows:
        """Return the rows at ``indices`` (int64), for mini-batches."""


class Engine(Protocol):
    """Computes the read-outs' expectations from the slots of a circuit and encoded rows.

    Attributes
    ----------
    name : str
        The backend's name.
    """

    name: str

    @property
    def dtype(self) -> torch.dtype:
        """Real type of slots and expectations."""

    @property
    def device(self) -> torch.device:
        """Where slots and expectations live."""

    def prepare(self, features: np.ndarray, step_rows: int | None = None) -> EncodedRows:
        """Encode features of shape (rows, n), to be used so many rows at a time (None: all)."""

    def expectations(self, slots: Tensor, encoded: EncodedRows) -> Tensor:
        """Return the read-outs' expectations, shape (rows, R), differentiable in slots (S,)."""


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
        Folder of transpiled circuits and of the job store.
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
        """Label the next circuits: the same label gives the same shots and, on devices, jobs."""


class PointsEngine(Engine, Protocol):
    """An engine that computes several points at once, without torch."""

    def evaluate(self, points: np.ndarray, encoded: EncodedRows) -> np.ndarray:
        """Compute the expectations at each of K points (K, S), shape (K, rows, R)."""


@runtime_checkable
class DeviceEngine(PointsEngine, Labelled, Protocol):
    """An engine whose circuits are jobs of a device: counted shots, costs, no derivatives.

    Attributes
    ----------
    usage : Usage
        Jobs, circuits, shots and seconds so far.
    reported : Usage
        The part of it that has been reported.
    shots : int
        Shots of a circuit.
    """

    usage: Usage
    reported: Usage
    shots: int

    @property
    def device_name(self) -> str:
        """The device's own name."""

    @property
    def two_qubit_gates(self) -> int:
        """Two-qubit gates of one circuit after transpiling."""

    def quote(self, circuits: int) -> tuple[int, float]:
        """Return the jobs that so many circuits would be, and their QPU seconds, estimated."""

    def reserve(self, *circuits: int, overdraw: bool = False) -> None:
        """Reserve budget for later jobs of so many circuits each, until the next call."""

    def close(self) -> None:
        """End a session or batch."""


def is_device(engine: Engine) -> TypeGuard[DeviceEngine]:
    """Whether an engine is a `DeviceEngine`, known by what only these have: torch stays out."""
    return hasattr(engine, "usage")


def takes_points(engine: Engine) -> TypeGuard[PointsEngine]:
    """Whether an engine is a `PointsEngine`."""
    return hasattr(engine, "evaluate")


def evaluate_points(engine: Engine, points: np.ndarray, encoded: EncodedRows) -> np.ndarray:
    """Compute the expectations at several points.

    Parameters
    ----------
    engine : Engine
        A device's engine does all points in one job, some at once, others one after the other.
    points : numpy.ndarray, shape (K, S)
        Slots in radians.
    encoded : EncodedRows
        The rows.

    Returns
    -------
    numpy.ndarray, float64, shape (K, rows, R)
        Expectations of the read-outs.
    """
    if takes_points(engine):
        return engine.evaluate(points, encoded)
    import torch

    with torch.no_grad():
        slots = torch.as_tensor(points, dtype=engine.dtype, device=engine.device)
        each = [engine.expectations(point, encoded) for point in slots]
    return torch.stack(each).double().cpu().numpy()


@dataclass(frozen=True)
class Usage:
    """What jobs cost.

    Attributes
    ----------
    jobs, circuits, shots : int
        What was submitted.
    qpu_seconds : float
        As the service bills them; the request's estimate where it does not report them.
    queue_seconds : float
        From accepted to running.
    """

    jobs: int = 0
    circuits: int = 0
    shots: int = 0
    qpu_seconds: float = 0.0
    queue_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class FeatureRows:
    """Rows of engines whose circuits encode them: the features, shape (rows, n), float64."""

    features: Tensor

    @classmethod
    def of(cls, features: np.ndarray) -> FeatureRows:
        """Keep features of shape (rows, n) as a float64 tensor."""
        import torch

        return cls(torch.from_numpy(np.array(features, dtype=np.float64)))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.features)

    def take(self, indices: Tensor) -> FeatureRows:
        """Return the rows at ``indices``."""
        return FeatureRows(self.features[indices])
