"""What every optimiser minimises when a teacher takes part, against the loss written out here.

Mini-batches are shuffled. No test knows the order: the rows of a step are whichever rows give its
loss, and the steps of one pass over the rows must use each row once.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from core import DistillSettings, QuantumSettings, TrainSettings
from quantum import TrainingData, build_classifier, train_local
from quantum.training.problem import Problem

Vector = npt.NDArray[np.float64]

ROWS, BATCH, RATE, SPREAD = 6, 2, 0.05, 0.2
TAUGHT = DistillSettings(weight=0.7, temperature=2.5)
EPS = 1e-6  # Adam's
SUBSETS = [np.array(rows) for rows in combinations(range(ROWS), BATCH)]

MODEL = build_classifier(QuantumSettings(qubits=3, precision="double"), 3)
START = MODEL.flatten(MODEL.initial(1))


def make_data() -> TrainingData:
    rng = np.random.default_rng(3)
    features, labels = rng.uniform(-1, 1, (ROWS, 3)), rng.integers(0, 3, ROWS)
    teacher = rng.dirichlet(np.ones(3), ROWS)
    return TrainingData(features, labels, teacher, np.array([1.0, 2.0, 0.5]))


DATA = make_data()


def expectations(angles: Vector, rows: npt.NDArray[np.int64]) -> Vector:
    prepared = MODEL.prepare(DATA.features[rows])
    with torch.no_grad():
        return MODEL.engine.expectations(torch.from_numpy(angles), prepared).numpy()


def softmax(values: Vector) -> Vector:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def closed_form(
    flat: Vector, rows: npt.NDArray[np.int64], *, loss_only: bool = False
) -> tuple[float, Vector]:
    """Loss, and gradient (D,) if wanted: ``(1 - l) CE(y, q) + l tau^2 KL(p_tau || q_tau)``.

    By hand, ``dCE/dlogits = w_y (q - y) / sum w`` and ``d(tau^2 KL)/dlogits = tau (q_tau - p_tau)
    / rows``; the expectations' slopes are half the differences of shifts by pi/2.
    """
    assert DATA.soft_labels is not None
    assert DATA.class_weights is not None
    angles, scale, bias = np.split(flat, [MODEL.angles, MODEL.angles + 3])
    z = expectations(angles, rows)
    logits, tau, weight = scale * z + bias, TAUGHT.temperature, TAUGHT.weight
    labels = np.eye(3)[DATA.labels[rows]]
    share = DATA.class_weights[DATA.labels[rows]]
    share = share / share.sum()
    teacher = DATA.soft_labels[rows] ** (1 / tau)
    teacher /= teacher.sum(axis=1, keepdims=True)
    student, soft = softmax(logits), softmax(logits / tau)
    hard = -(share * np.log((student * labels).sum(axis=1))).sum()
    divergence = (teacher * np.log(teacher / soft)).sum(axis=1).mean()
    loss = (1 - weight) * hard + weight * tau**2 * divergence
    if loss_only:
        return loss, np.empty(0)
    slope = (1 - weight) * share[:, None] * (student - labels)
    slope += weight * tau * (soft - teacher) / len(rows)
    shifts = np.pi / 2 * np.eye(MODEL.angles)
    slopes = [
        (expectations(angles + shift, rows) - expectations(angles - shift, rows)) / 2
        for shift in shifts
    ]
    of_angles = [(slope * scale * each).sum() for each in slopes]
    return loss, np.concatenate([of_angles, (slope * z).sum(axis=0), slope.sum(axis=0)])


def rows_of(loss: float, flat: Vector) -> npt.NDArray[np.int64]:
    """Return the rows whose closed form at ``flat`` is this loss; exactly one pair must fit."""
    forms = [closed_form(flat, rows, loss_only=True)[0] for rows in SUBSETS]
    fitting = [rows for rows, form in zip(SUBSETS, forms, strict=True) if abs(form - loss) < 1e-9]
    assert len(fitting) == 1, f"{len(fitting)} pairs of rows have the loss {loss}"
    return fitting[0]


def settings(optimizer: str, **more: Any) -> TrainSettings:
    given = {"optimizer": optimizer, "learning_rate": RATE, "batch_rows": BATCH, **more}
    return TrainSettings.model_validate(given)


def problem(optimizer: str, seed: int) -> Problem:
    return Problem(MODEL, MODEL.unflatten(START), DATA, settings(optimizer), TAUGHT, seed)


@pytest.mark.parametrize(("optimizer", "seed"), [("adam", 0), ("parameter-shift", 1)])
def test_gradients_are_those_of_each_shuffled_batch(optimizer: str, seed: int) -> None:
    one, flat = problem(optimizer, seed), START + 0.1
    gradient = one.by_autograd if optimizer == "adam" else one.by_shifts
    used: list[int] = []
    for step in range(ROWS // BATCH):
        loss, slope = gradient(torch.from_numpy(flat), step)
        rows = rows_of(loss, flat)
        np.testing.assert_allclose(slope.numpy(), closed_form(flat, rows)[1], atol=1e-9)
        used.extend(rows)
    assert sorted(used) == list(range(ROWS))


def test_spsas_losses_and_readout_gradients_are_those_of_each_shuffled_batch() -> None:
    one, shift = problem("spsa", seed=1), 0.3
    angles, readout = START[: MODEL.angles], START[MODEL.angles :]
    points = np.stack([angles + shift, angles - shift])
    used: list[int] = []
    for step in range(ROWS // BATCH):
        losses, gradient = one.measure(points, readout, step)
        flats = [np.concatenate([point, readout]) for point in points]
        rows = rows_of(losses[0], flats[0])
        (_, up), (loss, down) = (closed_form(flat, rows) for flat in flats)
        assert losses[1] == pytest.approx(loss, abs=1e-9)
        np.testing.assert_allclose(gradient, (up + down)[MODEL.angles :] / 2, atol=1e-9)
        used.extend(rows)
    assert sorted(used) == list(range(ROWS))


def one_step(optimizer: str) -> tuple[Vector, float]:
    """Train one step as a client does: the parameters afterwards, and the step's loss."""
    begun = MODEL.unflatten(START)
    result = train_local(MODEL, begun, DATA, settings(optimizer), TAUGHT, steps=1, seed=4)
    return MODEL.flatten(result.parameters), result.losses[0]


@pytest.mark.parametrize("optimizer", ["adam", "parameter-shift"])
def test_a_first_step_of_adam_follows_the_closed_form(optimizer: str) -> None:
    """Bias-corrected, its first step is ``rate g / (|g| + eps)``."""
    moved, loss = one_step(optimizer)
    gradient = closed_form(START, rows_of(loss, START))[1]
    expected = START - RATE * gradient / (np.abs(gradient) + EPS)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_a_first_step_of_spsa_follows_the_closed_form() -> None:
    """Each angle moves by the learning rate, to the side where the batch's loss is lower."""
    moved, loss = one_step("spsa")
    signs = np.sign(moved - START)[: MODEL.angles]
    shift = np.concatenate([SPREAD * signs, np.zeros(6)])
    sides = [START + shift, START - shift]
    means = [sum(closed_form(s, r, loss_only=True)[0] for s in sides) / 2 for r in SUBSETS]
    (rows,) = (r for r, mean in zip(SUBSETS, means, strict=True) if abs(mean - loss) < 1e-6)
    (towards, one), (away, other) = (closed_form(side, rows) for side in sides)
    assert towards < away
    np.testing.assert_allclose(np.abs(moved - START)[: MODEL.angles], RATE, atol=1e-6)
    slope = ((one + other) / 2)[MODEL.angles :]
    expected = START[MODEL.angles :] - RATE * slope / (np.abs(slope) + EPS)
    np.testing.assert_allclose(moved[MODEL.angles :], expected, atol=1e-6)


def test_cobyla_minimises_the_closed_form_of_one_batch() -> None:
    begun = MODEL.unflatten(START)
    train = settings("cobyla", learning_rate=0.5)
    result = train_local(MODEL, begun, DATA, train, TAUGHT, steps=6, seed=4)
    rows = rows_of(result.start_loss, START)
    best = closed_form(MODEL.flatten(result.parameters), rows)[0]
    assert best == pytest.approx(min(result.start_loss, *result.losses), abs=1e-6)
    assert best < result.start_loss


@pytest.mark.parametrize("optimizer", ["adam", "parameter-shift", "spsa", "cobyla"])
def test_the_teacher_of_another_row_is_another_loss(optimizer: str) -> None:
    """The tests above could not tell rows apart if the teacher said the same of all of them."""
    assert DATA.soft_labels is not None
    turned = replace(DATA, soft_labels=np.roll(DATA.soft_labels, 1, axis=0))
    begun, train = MODEL.unflatten(START), settings(optimizer)
    losses = {
        train_local(MODEL, begun, data, train, TAUGHT, steps=1, seed=4).start_loss
        for data in (DATA, turned)
    }
    assert len(losses) == 2
