"""What an engine is, and how one is chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from federation import (
    BackendError,
    QuantumSettings,
    explain,
    parse_device_options,
    parse_noise,
)
from quantum.ansatz import QCNN, VQC

if TYPE_CHECKING:
    import numpy as np
    import torch


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

    def prepare(self, features: np.ndarray) -> Prepared:
        """Encode features of shape (rows, n)."""

    def expectations(self, angles: torch.Tensor, prepared: Prepared) -> torch.Tensor:
        """<Z> of each read-out, shape (rows, R), differentiable in angles of shape (P,)."""


def build_engine(ansatz: QCNN | VQC, settings: QuantumSettings) -> Engine:
    """Build the engine that ``settings.backend`` names.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    settings : QuantumSettings
        The `quantum` section.

    Returns
    -------
    Engine
        `quantum.exact.ExactEngine` or `quantum.pennylane_engine.PennylaneEngine`.

    Raises
    ------
    BackendError
        If the backend is unknown, or cannot be had on this machine.
    SettingsError
        If the device's options or its noise are not written as they should be.
    """
    family, _, name = settings.backend.partition(":")
    if settings.backend == "exact":
        from quantum.exact import ExactEngine

        return ExactEngine(ansatz, settings.precision, settings.device)
    if family == "pennylane" and name:
        from quantum.pennylane_engine import PennylaneEngine

        options = parse_device_options(settings.device_options)
        noise = parse_noise(settings.noise)
        return PennylaneEngine(ansatz, name, options, noise)
    raise BackendError(
        explain(
            f"quantum.backend = {settings.backend!r}",
            "'exact' or 'pennylane:<device>', for instance 'pennylane:default.qubit'",
            "change quantum.backend",
        )
    )
