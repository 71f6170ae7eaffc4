"""The noise of gradient estimates: closed forms, then many trainings by a simulator's shots."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import DistillSettings, HardwareSettings, QuantumSettings, TrainSettings
from quantum import Classifier, Host, TrainingData, build_classifier, train_local
from quantum.training.estimates import Estimates, shot_variance, undirected
from quantum.training.problem import Problem


def test_without_shots_spsa_costs_the_angles_over_the_steps() -> None:
    found = Estimates()
    for slope in (0.3, -1.2, 0.7, 2.0):
        found.by_slope(slope, 0.0, 61)
    assert found.noise() == pytest.approx(60 / 4)


@given(st.floats(0.1, 10), st.floats(0.01, 0.9), st.integers(2, 200), st.integers(1, 50))
def test_shots_add_to_it(slope: float, share: float, angles: int, steps: int) -> None:
    """With a share of the squared slope that is the shots': (P / (1 - share) - 1) / S."""
    found = Estimates()
    for _ in range(steps):
        found.by_slope(slope, share * slope**2, angles)
    assert found.noise() == pytest.approx((angles / (1 - share) - 1) / steps)


def test_by_shifts_it_is_the_variance_over_the_squared_length() -> None:
    found = Estimates()
    found.by_gradient(5.0, 1.0)
    found.by_gradient(3.0, 1.0)
    assert found.noise() == pytest.approx(1.0 / (2 * 3.0))


def test_without_a_signal_it_is_infinite_and_without_estimates_zero() -> None:
    found = Estimates()
    assert found.noise() == 0
    found.by_slope(0.1, 1.0, 10)
    assert found.noise() == math.inf
    assert [undirected(*pair) for pair in ((61, 20), (61, 0), (1, 5))] == [3, 60, 0]


def test_a_mean_estimate_of_spsa_is_as_noisy_as_said() -> None:
    """Second method: 20,000 means of S slopes times signs, of a linear loss with its own noise."""
    rng = np.random.default_rng(0)
    slope, steps, noise, runs = np.array([0.5, -0.2, 0.1, 0.4]), 5, 0.3, 20_000
    signs = rng.choice([-1.0, 1.0], (runs, steps, len(slope)))
    slopes = signs @ slope + rng.normal(0, noise, (runs, steps))
    means = (slopes[..., None] * signs).mean(axis=1)
    measured = np.square(means - slope).sum(axis=1).mean() / np.square(slope).sum()
    found = Estimates()
    for one in slopes.ravel():
        found.by_slope(float(one), noise**2, len(slope))
    said = found.noise() * found.steps / steps
    assert said == pytest.approx(measured, rel=0.03)


def problem(backend: str, shots: int = 32) -> Problem:
    """One of strong expectations, where 1 - z^2 is far from 1, and few shots."""
    rng = np.random.default_rng(3)
    settings = QuantumSettings(qubits=2, model="product", reps=1, backend=backend)
    classifier = build_classifier(settings, 2, Host(HardwareSettings(shots=shots)))
    data = TrainingData(rng.uniform(-0.6, 0.6, (3, 2)), rng.integers(0, 2, 3))
    train = TrainSettings(optimizer="spsa", batch_rows=0)
    distill = DistillSettings(weight=0.0).in_round(1)
    parameters = {**classifier.initial(1), "weights": np.array([[2.0, 0.0], [-2.0, 0.5]])}
    return Problem(classifier, parameters, data, train, distill, 0)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Problem, Problem]:
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    return problem("aer"), problem("exact")


def test_the_shots_variance_is_that_of_repeated_measurements(pair: tuple[Problem, Problem]) -> None:
    aer, _ = pair
    points, readout = aer.start[None, : aer.angles], aer.start[aer.angles :]
    found = [aer._measure(points, readout, aer._all) for _ in range(600)]
    losses = np.array([losses[0] for losses, _, _ in found])
    said = np.mean([variance for _, _, variance in found])
    assert said == pytest.approx(losses.var(), rel=0.2)


def test_the_signal_of_spsa_is_the_squared_slope(pair: tuple[Problem, Problem]) -> None:
    aer, exact = pair
    signs = np.random.default_rng(1).choice([-1.0, 1.0], aer.angles)
    points = aer.start[: aer.angles] + 0.2 * np.stack([signs, -signs])
    for _ in range(600):
        aer.measure(points, aer.start[aer.angles :], 0)
    exact.measure(points, exact.start[exact.angles :], 0)
    signal = exact.estimates.signal
    assert aer.estimates.signal / 600 == pytest.approx(signal, rel=0.15)
    assert aer.estimates.spread / 600 > 1.3 * exact.estimates.spread


def test_the_noise_by_shifts_is_that_of_repeated_gradients(pair: tuple[Problem, Problem]) -> None:
    aer, exact = pair
    found = [aer.by_shifts(aer.anchor, 0)[1][: aer.angles].numpy() for _ in range(600)]
    gradient = exact.by_shifts(exact.anchor, 0)[1][: exact.angles].double().numpy()
    spread = np.square(found - np.mean(found, axis=0)).sum(axis=1).mean()
    assert aer.estimates.spread / 600 == pytest.approx(spread, rel=0.2)
    assert aer.estimates.signal / 600 == pytest.approx(np.square(gradient).sum(), rel=0.15)


def test_a_training_says_how_noisy_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    rng = np.random.default_rng(0)
    data = TrainingData(rng.uniform(-1, 1, (8, 2)), rng.integers(0, 2, 8))
    quantum = QuantumSettings(qubits=2, model="vqc", reps=1)
    exact, aer = (
        build_classifier(
            quantum.model_copy(update={"backend": name}), 2, Host(HardwareSettings(shots=64))
        )
        for name in ("exact", "aer")
    )
    distill = DistillSettings(weight=0.0).in_round(1)

    def noise(classifier: Classifier, optimizer: str, steps: int = 4) -> float:
        train = TrainSettings(optimizer=optimizer, batch_rows=0)  # type: ignore[arg-type]
        return train_local(classifier, exact.initial(1), data, train, distill, steps).noise

    angles = exact.angles
    assert noise(exact, "adam") == 0
    assert noise(exact, "parameter-shift") == 0
    assert noise(exact, "spsa") == pytest.approx((angles - 1) / 4)
    assert noise(exact, "cobyla") == pytest.approx((angles - 1) / 4)
    assert noise(aer, "spsa") > (angles - 1) / 4
    assert 0 < noise(aer, "parameter-shift") < noise(aer, "spsa")


def test_shot_variance_falls_with_shots() -> None:
    assert [shot_variance(2.0, shots) for shots in (4, 0)] == [0.5, 0.0]
