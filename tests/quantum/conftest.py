"""Small models and data shared by the quantum tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest
import torch

from core import DistillSettings, QuantumSettings
from quantum import Classifier, TrainingData, build_classifier
from quantum.ansatz.qcnn import QCNN
from quantum.ansatz.vqc import VQC
from quantum.circuit import Circuit, trace_ansatz
from quantum.circuit.parts import BlockKind

if TYPE_CHECKING:
    from quantum.engines.devices.jobs import JobRunner
    from tests.quantum.http_cloud import HttpCloud


UNTAUGHT = DistillSettings(weight=0.0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def binary() -> Classifier:
    return build_classifier(QuantumSettings(qubits=2, block="paper", readout="per-class"), 2)


@pytest.fixture
def sensitive() -> Classifier:
    """A model whose very first angle matters; the 2-qubit `paper` block's has no effect at all."""
    return build_classifier(QuantumSettings(qubits=2, readout="per-class"), 2)


@pytest.fixture
def cloud() -> Iterator[HttpCloud]:
    """IBM's side of the wire, on this machine."""
    from tests.quantum.http_cloud import serve

    with serve() as running:
        yield running


@pytest.fixture
def start(cloud: HttpCloud, tmp_path: Path) -> Callable[..., JobRunner]:
    """Return a function that starts a client of the cloud again."""
    from tests.quantum.device_jobs import client_on

    return client_on(cloud, tmp_path / "jobs.sqlite")


@pytest.fixture(scope="session")
def shared_circuits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transpiled circuits, shared by the tests that do not look at the transpiling itself."""
    return tmp_path_factory.mktemp("circuits")


@pytest.fixture
def device_store(tmp_path: Path, shared_circuits: Path) -> Path:
    """Return a site's store of its own, but for the transpiled circuits."""
    (tmp_path / "circuits").symlink_to(shared_circuits)
    return tmp_path


class Blobs(Protocol):
    def __call__(self, classes: int, qubits: int, rows: int, seed: int = 0) -> TrainingData: ...


@pytest.fixture
def blobs() -> Blobs:
    return make_blobs


def make_blobs(classes: int, qubits: int, rows: int, seed: int = 0) -> TrainingData:
    """Well separated classes around corners of the feature box."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    signs = np.where((np.arange(classes)[:, None] >> np.arange(qubits)) & 1, 1.0, -1.0)
    features = signs[labels] + 0.2 * rng.normal(size=(rows, qubits))
    return TrainingData(features.astype(np.float32), labels)


def qcnn(n: int, readouts: int = 1, block: BlockKind = "su4", uploads: int = 1) -> Circuit:
    """Trace a QCNN."""
    return trace_ansatz(QCNN(block, uploads, readouts), n, max(2, readouts), "qcnn")


def vqc(n: int, readouts: int = 1, feature_reps: int = 1, reps: int = 3) -> Circuit:
    """Trace a VQC."""
    return trace_ansatz(VQC(feature_reps, reps, readouts), n, max(2, readouts), "vqc")


def drawn(ansatz: Circuit, rows: int, seed: int = 7) -> tuple[torch.Tensor, np.ndarray]:
    """Draw angles (P,), a leaf of torch's, and features (rows, n)."""
    rng = np.random.default_rng(seed)
    angles = torch.tensor(rng.uniform(-np.pi, np.pi, ansatz.angles), requires_grad=True)
    return angles, rng.uniform(-np.pi / 2, np.pi / 2, (rows, ansatz.n_qubits))


def gradient(z: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Gradient of a nonlinear scalar of expectations."""
    weights = torch.linspace(-1.0, 1.0, z.numel(), dtype=z.dtype).reshape(z.shape)
    return torch.autograd.grad((z.square() * weights + z).sum(), angles)[0]
