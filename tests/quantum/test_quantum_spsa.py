"""SPSA and the parameter-shift rule against closed forms and against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import DistillSettings, QuantumSettings, TrainSettings, UserError
from quantum import TrainingData, build_classifier, circuits_per_step, train_local
from quantum.costs import circuits_before_steps
from quantum.training.optimisers import Gains, run_spsa
from quantum.training.problem import Problem


def problem(optimizer: str, rows: int = 6, **train: object) -> Problem:
    rng = np.random.default_rng(3)
    classifier = build_classifier(QuantumSettings(qubits=3, precision="double"), 3)
    data = TrainingData(
        rng.uniform(-1, 1, (rows, 3)),
        rng.integers(0, 3, rows),
        rng.dirichlet(np.ones(3), rows),
        np.array([1.0, 2.0, 0.5]),
    )
    settings = TrainSettings(optimizer=optimizer, proximal=0.3, **train)  # type: ignore[arg-type]
    return Problem(
        classifier, classifier.initial(1), data, settings, DistillSettings().in_round(1), 0
    )


def test_shifts_give_autograds_gradient() -> None:
    one = problem("parameter-shift")
    theta = one.anchor + 0.1  # off the anchor: the proximal term has a gradient too
    loss, gradient = one.by_shifts(theta, 0)
    exact_loss, exact = one.by_autograd(theta, 0)
    assert loss == pytest.approx(exact_loss, abs=1e-12)
    torch.testing.assert_close(gradient, exact, atol=1e-10, rtol=0)


def test_spsas_measure_gives_losses_and_the_readouts_gradient() -> None:
    one = problem("spsa")
    flat = one.start + 0.05
    angles, readout = flat[: one.angles], flat[one.angles :]
    losses, gradient = one.measure(np.stack([angles, angles]), readout, 0)
    exact_loss, exact = one.by_autograd(torch.from_numpy(flat), 0)
    assert losses == pytest.approx([exact_loss] * 2, abs=1e-12)
    np.testing.assert_allclose(gradient, exact[one.angles :].numpy(), atol=1e-12)


def test_cobyla_sees_the_same_rows_at_each_call() -> None:
    one = problem("cobyla", batch_rows=2)
    point = one.start
    assert one.value(point) == one.value(point)


@given(st.floats(0.01, 0.5), st.floats(0.01, 1.0), st.floats(0, 50), st.integers(0, 500))
def test_gain_sequences_closed_form(move: float, spread: float, stable: float, t: int) -> None:
    gains = Gains(move, spread, stable)
    assert gains.size(0) == pytest.approx(move)
    assert gains.size(t) == pytest.approx(move * ((stable + 1) / (stable + t + 1)) ** 0.602)
    assert gains.spread(t) == pytest.approx(spread / (t + 1) ** 0.101)


def linear(points: np.ndarray, readout: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    return points @ np.array([3.0, -1.0]), np.zeros(2)


def test_first_move_of_every_angle_is_the_learning_rate() -> None:
    """Whatever the slope's size: that is what calibrated means."""
    start = np.zeros(4)
    theta, _ = run_spsa(linear, start, 2, 1, Gains(0.05, 0.2, 10), 0, np.random.default_rng(0))
    assert np.abs(theta[:2]) == pytest.approx([0.05, 0.05])
    assert linear(theta[None, :2], theta[2:], 0)[0][0] < 0


def test_steps_on_a_linear_loss_are_spalls_written_out() -> None:
    """Differences of a linear function are exact: ``s_t = g . delta_t``, whatever c_t is."""
    gains, offset, steps = Gains(0.05, 0.2, 10), 7, 6
    theta, losses = run_spsa(linear, np.zeros(4), 2, steps, gains, offset, np.random.default_rng(4))
    rng, expected, sizes = np.random.default_rng(4), np.zeros(2), []
    for step in range(steps):
        signs = rng.choice(np.array([-1.0, 1.0]), size=2)
        slope = float(np.array([3.0, -1.0]) @ signs)
        sizes.append(abs(slope))
        assert losses[step] == pytest.approx(expected @ np.array([3.0, -1.0]))
        gain = 0.05 * (11 / (11 + offset + step)) ** 0.602
        expected -= gain * slope / np.mean(sizes) * signs
    assert theta[:2] == pytest.approx(expected)


def test_spsa_finds_the_minimum_of_a_bowl_from_noisy_values() -> None:
    rng = np.random.default_rng(5)
    centre = np.array([1.0, -0.5, 0.3])

    def noisy(points: np.ndarray, readout: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        values = ((points - centre) ** 2).sum(axis=1) + rng.normal(0, 0.01, len(points))
        return values, 2 * (readout - 2.0)

    gains = Gains(0.1, 0.2, 10)
    theta, losses = run_spsa(noisy, np.zeros(5), 3, 400, gains, 0, np.random.default_rng(1))
    np.testing.assert_allclose(theta[:3], centre, atol=0.1)
    np.testing.assert_allclose(theta[3:], 2.0, atol=0.2)
    assert losses[-1] < losses[0]


def test_spsa_refuses_what_is_not_finite() -> None:
    def broken(points: np.ndarray, readout: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(points), np.nan), np.zeros(2)

    with pytest.raises(UserError, match=r"loss is nan at step 0"):
        run_spsa(broken, np.zeros(3), 1, 2, Gains(0.1, 0.2, 1), 0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("optimizer", "backend", "circuits"),
    [
        ("auto", "exact", 4 * (1 + 2 * 7)),
        ("auto", "aer", 2 * 4),
        ("spsa", "exact", 2 * 4),
        ("parameter-shift", "fake:manila", 4 * (1 + 2 * 7)),
        ("cobyla", "ibm:somewhere", 4),
    ],
)
def test_circuits_of_a_step(optimizer: str, backend: str, circuits: int) -> None:
    train = TrainSettings(optimizer=optimizer, batch_rows=4)  # type: ignore[arg-type]
    assert circuits_per_step(train, 10, 7, backend) == circuits
    assert circuits_before_steps(train, 10) == (4 if optimizer == "cobyla" else 0)


@pytest.mark.parametrize("optimizer", ["spsa", "parameter-shift", "cobyla"])
def test_each_optimiser_learns_on_the_exact_engine_and_repeats(optimizer: str) -> None:
    rng = np.random.default_rng(0)
    classifier = build_classifier(QuantumSettings(qubits=2), 2)
    features = rng.uniform(-1.5, 1.5, (60, 2))
    data = TrainingData(features, (features[:, 1] > 0).astype(int))
    rate = {"spsa": 0.1, "parameter-shift": 0.1, "cobyla": 0.5}[optimizer]
    train = TrainSettings(optimizer=optimizer, learning_rate=rate, batch_rows=30)  # type: ignore[arg-type]
    distill = DistillSettings(weight=0)
    start = classifier.initial(2)
    results = [train_local(classifier, start, data, train, distill, 40, seed=s) for s in (7, 7, 8)]
    assert min(results[0].losses[-5:]) < 0.8 * results[0].start_loss
    assert results[0].losses == results[1].losses
    assert results[0].losses != results[2].losses
