"""Opening a device by its name: which backend, which service, which circuit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core import BackendError, family, write_text
from quantum.ansatz.circuits import QCNN, VQC
from quantum.engines.devices.contract import Budget
from quantum.engines.devices.ibm import (
    LEAST_BUSY,
    IbmService,
    NoAccountError,
    connect,
    fake_backend,
    pick_backend,
    stand_in,
)
from quantum.engines.devices.job_store import JobBook
from quantum.engines.devices.jobs import JobRunner
from quantum.engines.devices.noise import simulated

if TYPE_CHECKING:
    from core import QuantumSettings
    from quantum.engines.base import Host
    from quantum.engines.devices.engine import CircuitEngine
    from quantum.engines.devices.transpiling import Compiled


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
    from quantum.engines.devices.engine import CircuitEngine

    kind, hardware = family(settings.backend), host.hardware
    make_store(host)
    found = find_backend(settings.backend, hardware.account, ansatz.n_qubits, host)
    circuit = compile_for(ansatz, found.backend, host)
    # Aer's jobs are over when they return: only a budget must outlive the process.
    kept = kind != "aer" or hardware.budgeted
    book = JobBook(host.store / "jobs.sqlite") if kept else None
    service: Any
    if kind == "ibm":
        service = IbmService(found.backend, hardware, host.seed, found.service)
    else:
        noisy = None if settings.backend == "aer" else found.backend
        circuit, simulator = simulated(circuit, noisy, found.backend.name, settings.threads)
        if kind == "aer":
            from quantum.engines.devices.aer import AerService

            service = AerService(simulator, host.seed)
        else:
            service = IbmService(simulator, hardware, host.seed)
    runner = JobRunner(
        service,
        book,
        Budget.of(hardware),
        hardware.retries,
        hardware.job_timeout or host.timeout,
        np.random.default_rng(host.seed),
    )
    return CircuitEngine(settings.backend, circuit, runner, hardware, host.run)


def check_device(ansatz: QCNN | VQC, settings: QuantumSettings, host: Host) -> None:
    """Refuse a device that `open_engine` would not find, or a store that it could not write.

    Raises
    ------
    BackendError
        As `open_engine`.
    """
    make_store(host)
    find_backend(settings.backend, host.hardware.account, ansatz.n_qubits, host)


def make_store(host: Host) -> None:
    """Make the site's store, which its owner alone may enter: the book of jobs is in it.

    Raises
    ------
    BackendError
        If it cannot be made.
    """
    try:
        host.store.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(host, error) from None


def unusable(host: Host, error: OSError) -> BackendError:
    """Build the error of a store that cannot be used."""
    return BackendError(
        f"the site's store {str(host.store)!r} cannot be used ({error.strerror or error})",
        "a folder that can be written",
        "change llm.store or LLM_QFL_HOME",
    )


def compile_for(ansatz: QCNN | VQC, backend: Any, host: Host) -> Compiled:
    """Return the ansatz's circuit for a backend, kept on disk by what it depends on.

    Raises
    ------
    BackendError
        If the store cannot be written.
    """
    from quantum.engines.devices.transpiling import compiled

    level, trials = host.hardware.optimization_level, host.hardware.layout_trials
    try:
        return compiled(ansatz, backend, level, trials, host.layout_seed, host.store / "circuits")
    except OSError as error:
        raise unusable(host, error) from None


@dataclass(frozen=True)
class Found:
    """A Qiskit backend, and IBM's service where it is reached through one."""

    backend: Any
    service: Any = None


def find_backend(name: str, account: str, qubits: int, host: Host) -> Found:
    """Return the Qiskit backend behind a name of `quantum.backend`.

    What ``least_busy`` found stays the backend of the run: another one in the next process would
    not know the jobs of this one.

    Raises
    ------
    BackendError
        If there is none, no account to reach it, or it has too few qubits.
    """
    kind, _, device = name.partition(":")
    if name == "aer":
        from qiskit_aer import AerSimulator

        return Found(AerSimulator())
    if kind == "ibm" or (kind == "aer" and device.startswith("ibm_")):
        try:
            service = connect(account)
        except NoAccountError:
            if not host.estimate or device == LEAST_BUSY:
                raise
            return Found(stand_in(device, qubits, kind))
        if device != "least_busy" or not host.run:
            return Found(pick_backend(service, device, qubits, kind), service)
        note = host.store / "least-busy" / hashlib.sha256(host.run.encode()).hexdigest()[:24]
        chosen = note.read_text(encoding="utf-8") if note.is_file() else device
        backend = pick_backend(service, chosen, qubits)
        write_text(note, str(backend.name))
        return Found(backend, service)
    return Found(fake_backend(device, qubits, kind))
