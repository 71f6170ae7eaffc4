"""Opening a device by its name: which backend, which service, which circuit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from federation import family
from quantum.ansatz import QCNN, VQC
from quantum.devices.jobs import Budget, JobRunner

if TYPE_CHECKING:
    from federation import QuantumSettings
    from quantum.devices.engine import CircuitEngine
    from quantum.devices.transpiling import Compiled
    from quantum.engines import Host


def open_engine(ansatz: QCNN | VQC, settings: QuantumSettings, host: Host) -> CircuitEngine:
    """Open a device and transpile the circuit for it.

    Parameters
    ----------
    ansatz : QCNN or VQC
        The circuit.
    settings : QuantumSettings
        The `quantum` section; ``backend`` is of the families aer, fake or ibm.
    host : Host
        Hardware settings, seed, folder, run.

    Returns
    -------
    CircuitEngine
        Ready to run jobs.

    Raises
    ------
    BackendError
        If there is no such backend, no account, or too few qubits.
    """
    from quantum.devices.book import JobBook
    from quantum.devices.engine import CircuitEngine

    name, hardware = settings.backend, host.hardware
    backend = find_backend(name, hardware.account, ansatz.n_qubits)
    circuit = compile_for(ansatz, backend, host)
    service: Any
    book = None
    if family(name) == "aer":
        from quantum.devices.aer import AerService

        service = AerService(None if name == "aer" else backend, settings.threads)
    else:
        from quantum.devices.ibm import IbmService

        service = IbmService(backend, hardware, host.seed)
        book = JobBook(host.store / "jobs.sqlite")
    runner = JobRunner(
        service,
        book,
        Budget.of(hardware),
        hardware.retries,
        hardware.job_timeout,
        np.random.default_rng(host.seed),
    )
    return CircuitEngine(name, circuit, runner, hardware, host.run)


def compile_for(ansatz: QCNN | VQC, backend: Any, host: Host) -> Compiled:
    """Return the ansatz's circuit for a backend, kept on disk by what it depends on."""
    from quantum.devices.transpiling import compiled

    level, trials = host.hardware.optimization_level, host.hardware.layout_trials
    return compiled(ansatz, backend, level, trials, host.seed, host.store / "circuits")


def find_backend(name: str, account: str, qubits: int) -> Any:
    """Return the Qiskit backend behind a name of `quantum.backend`.

    Raises
    ------
    BackendError
        If there is none, no account to reach it, or it has too few qubits.
    """
    kind, _, device = name.partition(":")
    if name == "aer":
        from qiskit_aer import AerSimulator

        return AerSimulator()
    from quantum.devices.ibm import connect, fake_backend, pick_backend

    if kind == "ibm" or device.startswith("ibm_"):
        return pick_backend(connect(account), device, qubits)
    return fake_backend(device, qubits)
