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

if TYPE_CHECKING:
    from quantum.engines.devices.jobs import JobRunner
    from tests.quantum.http_cloud import HttpCloud


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def no_distillation() -> DistillSettings:
    return DistillSettings(weight=0.0)


@pytest.fixture
def binary() -> Classifier:
    return build_classifier(QuantumSettings(qubits=2, block="paper"), 2)


@pytest.fixture
def sensitive() -> Classifier:
    """A model whose very first angle matters; the 2-qubit `paper` block's has no effect at all."""
    return build_classifier(QuantumSettings(qubits=2), 2)


@pytest.fixture
def cloud() -> Iterator[HttpCloud]:
    """IBM's side of the wire, on this machine."""
    from tests.quantum.http_cloud import serve

    with serve() as running:
        yield running


@pytest.fixture
def start(cloud: HttpCloud, tmp_path: Path) -> Callable[..., JobRunner]:
    """Return a function that starts a client of the cloud anew."""
    from tests.quantum.device_jobs import client_on

    return client_on(cloud, tmp_path / "jobs.sqlite")


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
