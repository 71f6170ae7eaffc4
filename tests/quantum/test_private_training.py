"""Training with clipped and noised gradients of rows, against autograd and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core import DistillSettings, QuantumSettings, SettingsError, TrainSettings
from quantum import (
    Classifier,
    RowPrivacy,
    TrainingData,
    TrainTask,
    build_classifier,
    train_together,
)
from quantum.losses import cross_entropy
from quantum.training.private import RowLosses, clipped_sum

UNTAUGHT = DistillSettings(weight=0.0)
DESCENT = TrainSettings(optimizer="descent", learning_rate=0.2, batch_rows=0, schedule="constant")
OPEN = RowPrivacy(clip=1e9, deviation=0.0, seed=0)


def rows(count: int, qubits: int, classes: int = 2, seed: int = 0) -> TrainingData:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = rng.uniform(-1.5, 1.5, (count, qubits)).astype(np.float32)
    weights = np.linspace(0.5, 2.0, classes)
    return TrainingData(features, labels, class_weights=weights)


def task(
    classifier: Classifier,
    data: TrainingData,
    privacy: RowPrivacy | None = None,
    train: TrainSettings = DESCENT,
    steps: int = 1,
) -> TrainTask:
    first = classifier.initial(3)
    return TrainTask(classifier, first, data, train, UNTAUGHT, steps, privacy=privacy)


def trained(one: TrainTask) -> np.ndarray:
    (found,) = train_together([one])
    if isinstance(found, Exception):
        raise found
    return one.classifier.flatten(found.parameters)


def by_autograd(classifier: Classifier, data: TrainingData, theta: Tensor) -> np.ndarray:
    """One row's gradient after the other, (rows, D), of losses whose mean is the whole's."""
    weights = torch.from_numpy(np.asarray(data.class_weights))
    own = weights[torch.from_numpy(np.asarray(data.labels))]
    found = []
    for row in range(len(data.features)):
        leaf = theta.to(classifier.engine.dtype).requires_grad_(True)
        logits = classifier.logits_tensor(leaf, classifier.prepare(data.features[row : row + 1]))
        loss = cross_entropy(logits, torch.tensor([int(data.labels[row])]))
        (slope,) = torch.autograd.grad(loss, leaf)
        found.append((slope.double() * own[row] / own.mean()).numpy())
        theta = theta.detach()
    return np.stack(found)


@pytest.mark.parametrize(
    ("model", "qubits", "classes", "readout"),
    [
        ("qcnn", 4, 2, "linear"),
        ("qcnn", 2, 2, "per-class"),
        ("qcnn", 4, 3, "linear-zz"),
        ("vqc", 3, 3, "linear"),
        ("product", 3, 2, "linear"),
        ("tests.quantum.odd_circuits:SharedWeights", 3, 2, "linear"),
        ("qcnn", 8, 2, "linear"),  # the engine of larger circuits
    ],
)
def test_gradients_of_rows_are_those_of_autograd(
    model: str, qubits: int, classes: int, readout: Any
) -> None:
    settings = QuantumSettings(model=model, qubits=qubits, readout=readout, precision="double")
    classifier, data = build_classifier(settings, classes), rows(5, qubits, classes)
    theta = torch.from_numpy(classifier.flatten(classifier.initial(3)))
    losses, slopes = RowLosses(task(classifier, data)).gradients(theta)
    np.testing.assert_allclose(slopes, by_autograd(classifier, data, theta), atol=1e-6)
    logits = torch.from_numpy(
        classifier.logits(classifier.initial(3), classifier.prepare(data.features))
    )
    whole = cross_entropy(
        logits, torch.from_numpy(data.labels), torch.from_numpy(data.class_weights)
    )
    assert float(losses.mean()) == pytest.approx(float(whole), abs=1e-6)


@given(st.floats(1e-3, 10), st.integers(0, 999))
def test_a_row_moves_the_clipped_sum_by_twice_the_bound_at_most(bound: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slopes = torch.from_numpy(rng.normal(size=(6, 4)) * rng.exponential(3, (6, 1)))
    other = slopes.clone()
    other[2] = torch.from_numpy(rng.normal(size=4) * 100)
    moved = (clipped_sum(slopes, bound) - clipped_sum(other, bound)).norm()
    assert float(moved) <= 2 * bound * (1 + 1e-12)
    assert float(clipped_sum(slopes[:1], bound).norm()) <= bound * (1 + 1e-12)
    torch.testing.assert_close(clipped_sum(slopes, 1e9), slopes.sum(dim=0))


def test_clipping_leaves_short_rows_and_shortens_long_ones() -> None:
    slopes = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    assert clipped_sum(slopes, 1.0).tolist() == pytest.approx([0.6 + 0.3, 0.8 + 0.4])


def test_without_noise_and_clipping_it_is_plain_descent_and_plain_adam() -> None:
    classifier, data = build_classifier(QuantumSettings(qubits=4), 2), rows(20, 4)
    for train in (DESCENT, DESCENT.model_copy(update={"optimizer": "adam", "proximal": 0.3})):
        plain = trained(task(classifier, data, None, train, steps=4))
        private = trained(task(classifier, data, OPEN, train, steps=4))
        np.testing.assert_allclose(private, plain, atol=1e-6)


def test_a_step_carries_the_noise_that_was_asked_for() -> None:
    classifier, data = build_classifier(QuantumSettings(qubits=4), 2), rows(10, 4)
    plain = trained(task(classifier, data, OPEN))
    noised = [
        trained(task(classifier, data, RowPrivacy(1e9, 6.0, seed))) - plain for seed in range(40)
    ]
    # The rate times the noise of the sum, over the rows.
    assert np.std(noised) == pytest.approx(0.2 * 6.0 / 10, rel=0.05)
    assert np.mean(noised) == pytest.approx(0.0, abs=0.01)


def test_noise_repeats_by_its_seed_alone() -> None:
    classifier, data = build_classifier(QuantumSettings(qubits=2), 2), rows(10, 2)

    def once(seed: int | None) -> np.ndarray:
        return trained(task(classifier, data, RowPrivacy(1.0, 1.0, seed)))

    assert np.array_equal(once(5), once(5))
    assert not np.allclose(once(5), once(6))
    assert not np.allclose(once(None), once(None))


def test_a_long_row_counts_no_more_than_the_bound() -> None:
    classifier, data = build_classifier(QuantumSettings(qubits=4), 2), rows(10, 4)
    start = classifier.flatten(classifier.initial(3))
    moved = trained(task(classifier, data, RowPrivacy(1e-3, 0.0, 0))) - start
    assert 0 < np.linalg.norm(moved) <= 0.2 * 1e-3 + 1e-6


def test_shots_train_privately_by_shifts() -> None:
    settings = QuantumSettings(qubits=2, backend="aer")
    classifier, data = build_classifier(settings, 2), rows(6, 2)
    exact = build_classifier(QuantumSettings(qubits=2), 2)
    ideal, counted = (trained(task(one, data, OPEN)) for one in (exact, classifier))
    np.testing.assert_allclose(counted, ideal, atol=0.05)
    assert not np.array_equal(counted, ideal)


def test_an_angle_of_features_and_weights_at_once_is_refused() -> None:
    settings = QuantumSettings(qubits=2, model="tests.quantum.odd_circuits:Reupload")
    classifier = build_classifier(settings, 2)
    with pytest.raises(SettingsError, match="an angle depends on features and weights at once"):
        trained(task(classifier, rows(4, 2), OPEN))
