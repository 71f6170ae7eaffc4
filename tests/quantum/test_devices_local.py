"""Fake backends through the same client as IBM's, in its local mode on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from core import BackendError, HardwareSettings
from quantum.engines.devices.backends import fake_backend
from quantum.engines.devices.base import Request
from quantum.engines.devices.ibm import IbmService
from quantum.engines.devices.job_store import JobStore
from tests.quantum.device_jobs import ANGLES, SHOTS, circuit_on, request_on, runner_of


@pytest.fixture(scope="module")
def manila() -> Any:
    return fake_backend("manila", 2)


@pytest.fixture(scope="module")
def reference(manila: Any) -> np.ndarray:
    """<ZI> of a million noisy shots, counted by Aer without any primitive."""
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

    circuit, observable = circuit_on(manila)
    (qubit,) = np.flatnonzero(observable.paulis.z[0])
    measured = QuantumCircuit(circuit.num_qubits, 1)
    measured.compose(circuit, inplace=True)
    measured.measure(int(qubit), 0)
    simulator = AerSimulator(noise_model=NoiseModel.from_backend(manila), method="density_matrix")
    bound = [measured.assign_parameters(row) for row in ANGLES]
    counts = simulator.run(bound, shots=1_000_000, seed_simulator=1).result().get_counts()
    return np.array([(c["0"] - c["1"]) / 1e6 for c in counts])


@pytest.mark.parametrize("execution", ["job", "batch", "session"])
def test_values_are_those_of_the_noisy_device_in_every_mode(
    manila: Any, reference: np.ndarray, tmp_path: Path, execution: Any
) -> None:
    service = IbmService(manila, HardwareSettings(execution=execution), seed=3)
    runner = runner_of(service, tmp_path / "jobs.sqlite", sleep=time.sleep)
    (values,), usage = runner.run(request_on(manila))
    service.close()
    sigma = np.sqrt((1 - reference**2) * (1 / SHOTS + 1e-6))
    assert (np.abs(values - reference) < 5 * sigma).all()
    assert np.abs(values - np.cos(ANGLES[:, 0])).max() < 0.15
    assert (usage.jobs, usage.circuits, usage.shots, usage.qpu_seconds) == (1, 3, 12288, 0.0)
    entry = JobStore(tmp_path / "jobs.sqlite").find("k")
    assert entry is not None
    assert (entry.backend, entry.status) == ("fake_manila", "collected")


def test_the_seed_and_the_key_decide_the_shots(manila: Any) -> None:
    def run(seed: int, key: str = "k") -> list[float]:
        service = IbmService(manila, HardwareSettings(), seed)
        (values,), _ = runner_of(service, sleep=time.sleep).run(request_on(manila, key))
        return list(values)

    assert run(0) == run(0)
    assert run(0) != run(1)
    assert run(0) != run(0, "another")


def test_a_circuit_that_the_device_cannot_run_is_refused(manila: Any) -> None:
    circuit = QuantumCircuit(5)
    circuit.cx(0, 4)
    request = Request(((circuit, SparsePauliOp("ZIIII")),), 0.1, "k", "r", "l", 1, 100)
    with pytest.raises(BackendError, match=r"fake_manila refused the job .*; accepted: "):
        runner_of(IbmService(manila, HardwareSettings(), 0)).run(request)


@pytest.mark.parametrize(
    "name", ["manila", "fake_manila", "FakeManilaV2", "FakeManila", "ibmq_manila", "Manila_v2"]
)
def test_spellings(name: str) -> None:
    assert fake_backend(name).name == "fake_manila"


@pytest.mark.parametrize(
    ("name", "qubits", "why"),
    [
        ("manilla", 4, "'fake:manilla', there is no such snapshot; .* fake:manila"),
        ("?", 4, "there is no such snapshot; accepted: one of 60, for instance fake:algiers"),
        ("manila", 6, "'fake:manila' has 5 qubits and the circuit needs 6"),
    ],
)
def test_unusable_names(name: str, qubits: int, why: str) -> None:
    with pytest.raises(BackendError, match=why):
        fake_backend(name, qubits)
