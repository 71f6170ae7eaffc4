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
from quantum import Classifier, TrainingData, build_classifier, train_local
from quantum.training.problem import Problem

Vector = npt.NDArray[np.float64]

ROWS, BATCH, RATE, SPREAD = 6, 2, 0.05, 0.2
TAUGHT = DistillSettings(weight=0.7, temperature=2.5)
EPS = 1e-6  # Adam's
SUBSETS = [np.array(rows) for rows in combinations(range(ROWS), BATCH)]

MODELS = {
    kind: build_classifier(QuantumSettings(qubits=3, readout=kind), 3)
    for kind in ("per-class", "linear", "linear-zz")
}
by_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def start_of(model: Classifier) -> Vector:
    return model.flatten(model.initial(1))


def make_data() -> TrainingData:
    rng = np.random.default_rng(3)
    features, labels = rng.uniform(-1, 1, (ROWS, 3)), rng.integers(0, 3, ROWS)
    labels[2] = -1  # a row without a label
    teacher = rng.dirichlet(np.ones(3), ROWS)
    return TrainingData(features, labels, teacher, np.array([1.0, 2.0, 0.5]))


DATA = make_data()


def expectations(model: Classifier, angles: Vector, rows: npt.NDArray[np.int64]) -> Vector:
    with torch.no_grad():
        return model.expectations(
            torch.from_numpy(angles), model.prepare(DATA.features[rows])
        ).numpy()


def matrix_of(model: Classifier, head: Vector) -> Vector:
    """Return the weights (C, K) of a head: the scales are a diagonal matrix."""
    return head[:-3].reshape(3, -1) if model.linear else np.diag(head[:-3])


def softmax(values: Vector) -> Vector:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def closed_form(
    model: Classifier, flat: Vector, rows: npt.NDArray[np.int64], *, loss_only: bool = False
) -> tuple[float, Vector]:
    """Loss, and gradient (D,) if wanted: ``(1 - l) CE(y, q) + l tau^2 KL(p_tau || q_tau)``.

    By hand, ``dCE/dlogits = w_y (q - y) / sum w`` over the rows with a label and
    ``d(tau^2 KL)/dlogits = v tau (q_tau - p_tau) / sum v``, v the class's weight, or its mean by
    the teacher where there is no label; the expectations' slopes are half the differences of
    shifts by pi/2.
    """
    assert DATA.soft_labels is not None
    assert DATA.class_weights is not None
    angles, head = np.split(flat, [model.angles])
    z, matrix = expectations(model, angles, rows), matrix_of(model, head)
    logits, tau, weight = z @ matrix.T + head[-3:], TAUGHT.temperature, TAUGHT.weight
    labelled = DATA.labels[rows] >= 0
    labels = np.eye(3)[DATA.labels[rows]] * labelled[:, None]
    own = labels @ DATA.class_weights
    hard_share = own / own.sum()
    own = np.where(labelled, own, 1 / (DATA.soft_labels[rows] / DATA.class_weights).sum(axis=1))
    soft_share = own / own.sum()
    teacher = DATA.soft_labels[rows] ** (1 / tau)
    teacher /= teacher.sum(axis=1, keepdims=True)
    student, soft = softmax(logits), softmax(logits / tau)
    hard = -(hard_share[:, None] * labels * np.log(student)).sum()
    divergence = (soft_share[:, None] * teacher * np.log(teacher / soft)).sum()
    loss = (1 - weight) * hard + weight * tau**2 * divergence
    if loss_only:
        return loss, np.empty(0)
    slope = (1 - weight) * hard_share[:, None] * (student - labels)
    slope += weight * tau * soft_share[:, None] * (soft - teacher)
    slopes = [
        expectations(model, angles + shift, rows) - expectations(model, angles - shift, rows)
        for shift in np.pi / 2 * np.eye(model.angles)
    ]
    of_angles = [(slope @ matrix * each).sum() / 2 for each in slopes]
    of_matrix = slope.T @ z
    of_head = of_matrix.ravel() if model.linear else np.diag(of_matrix)
    return loss, np.concatenate([of_angles, of_head, slope.sum(axis=0)])


def rows_of(model: Classifier, loss: float, flat: Vector) -> npt.NDArray[np.int64]:
    """Return the rows whose closed form at ``flat`` is this loss; exactly one pair must fit."""
    forms = [closed_form(model, flat, rows, loss_only=True)[0] for rows in SUBSETS]
    fitting = [rows for rows, form in zip(SUBSETS, forms, strict=True) if abs(form - loss) < 1e-9]
    assert len(fitting) == 1, f"{len(fitting)} pairs of rows have the loss {loss}"
    return fitting[0]


def settings(optimizer: str, **more: Any) -> TrainSettings:
    given = {"optimizer": optimizer, "learning_rate": RATE, "batch_rows": BATCH, **more}
    return TrainSettings.model_validate(given)


def problem(model: Classifier, optimizer: str, seed: int) -> Problem:
    return Problem(model, model.initial(1), DATA, settings(optimizer), TAUGHT, seed)


@by_model
@pytest.mark.parametrize(("optimizer", "seed"), [("adam", 0), ("parameter-shift", 1)])
def test_gradients_are_those_of_each_shuffled_batch(
    model: Classifier, optimizer: str, seed: int
) -> None:
    one, flat = problem(model, optimizer, seed), start_of(model) + 0.1
    gradient = one.by_autograd if optimizer == "adam" else one.by_shifts
    used: list[int] = []
    for step in range(ROWS // BATCH):
        loss, slope = gradient(torch.from_numpy(flat), step)
        rows = rows_of(model, loss, flat)
        np.testing.assert_allclose(slope.numpy(), closed_form(model, flat, rows)[1], atol=1e-9)
        used.extend(rows)
    assert sorted(used) == list(range(ROWS))


@by_model
def test_spsas_losses_and_head_gradients_are_those_of_each_shuffled_batch(
    model: Classifier,
) -> None:
    one, shift = problem(model, "spsa", seed=1), 0.3
    angles, head = np.split(start_of(model), [model.angles])
    points = np.stack([angles + shift, angles - shift])
    used: list[int] = []
    for step in range(ROWS // BATCH):
        losses, gradient = one.measure(points, head, step)
        flats = [np.concatenate([point, head]) for point in points]
        rows = rows_of(model, losses[0], flats[0])
        (_, up), (loss, down) = (closed_form(model, flat, rows) for flat in flats)
        assert losses[1] == pytest.approx(loss, abs=1e-9)
        np.testing.assert_allclose(gradient, (up + down)[model.angles :] / 2, atol=1e-9)
        used.extend(rows)
    assert sorted(used) == list(range(ROWS))


def one_step(model: Classifier, optimizer: str) -> tuple[Vector, float]:
    """Train one step as a client does: the parameters afterwards, and the step's loss."""
    begun = model.initial(1)
    result = train_local(model, begun, DATA, settings(optimizer), TAUGHT, steps=1, seed=4)
    return model.flatten(result.parameters), result.losses[0]


@by_model
@pytest.mark.parametrize("optimizer", ["adam", "parameter-shift"])
def test_a_first_step_of_adam_follows_the_closed_form(model: Classifier, optimizer: str) -> None:
    """Bias-corrected, its first step is ``rate g / (|g| + eps)``."""
    (moved, loss), start = one_step(model, optimizer), start_of(model)
    gradient = closed_form(model, start, rows_of(model, loss, start))[1]
    expected = start - RATE * gradient / (np.abs(gradient) + EPS)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


@by_model
def test_a_first_step_of_spsa_follows_the_closed_form(model: Classifier) -> None:
    """Each angle moves by the learning rate, to the side where the batch's loss is lower."""
    (moved, loss), start = one_step(model, "spsa"), start_of(model)
    signs = np.sign(moved - start)[: model.angles]
    shift = np.concatenate([SPREAD * signs, np.zeros(model.head.size)])
    sides = [start + shift, start - shift]
    means = [sum(closed_form(model, s, r, loss_only=True)[0] for s in sides) / 2 for r in SUBSETS]
    (rows,) = (r for r, mean in zip(SUBSETS, means, strict=True) if abs(mean - loss) < 1e-6)
    (towards, one), (away, other) = (closed_form(model, side, rows) for side in sides)
    assert towards < away
    np.testing.assert_allclose(np.abs(moved - start)[: model.angles], RATE, atol=1e-6)
    slope = ((one + other) / 2)[model.angles :]
    expected = start[model.angles :] - RATE * slope / (np.abs(slope) + EPS)
    np.testing.assert_allclose(moved[model.angles :], expected, atol=1e-6)


@by_model
def test_cobyla_minimises_the_closed_form_of_one_batch(model: Classifier) -> None:
    train = settings("cobyla", learning_rate=0.5)
    result = train_local(model, model.initial(1), DATA, train, TAUGHT, steps=60, seed=4)
    rows = rows_of(model, result.start_loss, start_of(model))
    best = closed_form(model, model.flatten(result.parameters), rows)[0]
    assert best == pytest.approx(min(result.start_loss, *result.losses), abs=1e-6)
    assert best < result.start_loss


@pytest.mark.parametrize("optimizer", ["adam", "parameter-shift", "spsa", "cobyla"])
def test_the_teacher_of_another_row_is_another_loss(optimizer: str) -> None:
    """The tests above could not tell rows apart if the teacher said the same of all of them."""
    assert DATA.soft_labels is not None
    turned = replace(DATA, soft_labels=np.roll(DATA.soft_labels, 1, axis=0))
    model, train = MODELS["linear"], settings(optimizer)
    losses = {
        train_local(model, model.initial(1), data, train, TAUGHT, steps=1, seed=4).start_loss
        for data in (DATA, turned)
    }
    assert len(losses) == 2
