"""Building the engine that a backend's name means."""

from __future__ import annotations

from core import BackendError, QuantumSettings, is_shot_based, parse_device_options, parse_noise
from quantum.circuit import Circuit
from quantum.engines.base import Engine, Host


def build_engine(ansatz: Circuit, settings: QuantumSettings, host: Host | None = None) -> Engine:
    """Build the engine that ``settings.backend`` names.

    Parameters
    ----------
    ansatz : Circuit
        The circuit.
    settings : QuantumSettings
        The `quantum` section, one backend.
    host : Host, optional
        Where it runs; None: with default hardware settings, in the user's cache folder.

    Returns
    -------
    Engine
        `ExactEngine`, `GateByGateEngine`, `PennylaneEngine` or `CircuitEngine`.

    Raises
    ------
    BackendError
        If the backend is unknown, or cannot be had on this machine.
    SettingsError
        If the device's options or its noise are not written as they should be.
    """
    family, _, name = settings.backend.partition(":")
    if settings.backend == "exact":
        from quantum.engines.exact import open_exact

        return open_exact(ansatz, settings.precision, settings.device)
    if family == "pennylane" and name:
        from quantum.engines.pennylane import PennylaneEngine

        host = host or Host()
        options = parse_device_options(settings.device_options)
        noise = parse_noise(settings.noise)
        return PennylaneEngine(ansatz, name, options, noise, host.hardware.shots, host.seed)
    if is_shot_based(settings.backend):
        from quantum.engines.devices import open_engine

        return open_engine(ansatz, settings, host or Host())
    raise BackendError(
        f"quantum.backend = {settings.backend!r}",
        "exact, pennylane:<device>, aer, aer:<backend>, fake:<backend> or ibm:<backend>",
        "change quantum.backend",
    )


def check_backend(ansatz: Circuit, settings: QuantumSettings, host: Host | None = None) -> None:
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
        if family == "pennylane":  # refused before torch is loaded
            from quantum.engines.pennylane import find_device

            find_device(name)
        build_engine(ansatz, settings, host)
