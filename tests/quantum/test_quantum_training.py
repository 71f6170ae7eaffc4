"""Classifier, local training and evaluation on tiny data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import DataError, DistillSettings, QuantumSettings, TrainSettings, UserError
from quantum import Classifier, TrainingData, build_classifier, evaluate, train_local
from quantum.costs import circuits_before_steps, circuits_per_step
from quantum.head import Head
from quantum.losses import feature_distillation, teacher_similarity
from quantum.training.problem import Problem
from tests.quantum.conftest import UNTAUGHT

ADAM = TrainSettings(learning_rate=0.1)
Blobs = Callable[..., TrainingData]
COBYLA = TrainSettings(optimizer="cobyla", learning_rate=0.5)


def test_logits_by_hand() -> None:
    z = torch.tensor([[0.5], [-1.0]])
    two = Head(1, 2).logits(z, torch.tensor([4.0, 1.0]))
    assert two.tolist() == [[0.0, 3.0], [0.0, -3.0]]
    z = torch.tensor([[0.5, -0.5, 1.0]])
    three = Head(3, 3).logits(z, torch.tensor([2.0, 4.0, 1.0, 0.0, 1.0, 0.0]))
    assert three.tolist() == [[1.0, -1.0, 1.0]]
    linear = Head(3, 2, linear=True)
    weights, bias = [[2.0, 4.0, 1.0], [0.0, 1.0, -1.0]], [0.25, 0.5]
    parameters = torch.tensor([*weights[0], *weights[1], *bias])
    assert linear.logits(z, parameters).tolist() == [[0.25, -1.0]]
    assert linear.logits(z.numpy(), parameters.numpy()).tolist() == [[0.25, -1.0]]


@given(
    st.integers(2, 6),
    st.integers(2, 5),
    st.sampled_from(["qcnn", "vqc"]),
    st.sampled_from(["per-class", "linear"]),
    st.integers(0, 99),
)
def test_shape_contract(qubits: int, classes: int, model: str, readout: Any, seed: int) -> None:
    linear = readout == "linear"
    if classes > (2**qubits if linear else max(2, qubits)):
        return
    settings = QuantumSettings(qubits=qubits, model=model, readout=readout)
    classifier = build_classifier(settings, classes)
    readouts = 1 if classes == 2 else classes
    expected: dict[str, tuple[int, ...]] = {"scale": (readouts,), "bias": (readouts,)}
    if linear:
        expected = {"weights": (classes, qubits), "bias": (classes,)}
    parameters = classifier.initial(seed)
    assert {name: value.shape for name, value in parameters.items()} == classifier.shapes
    assert classifier.shapes == {"angles": (classifier.angles,), **expected}
    assert all(value.dtype == np.float32 for value in parameters.values())
    probabilities, circuits = evaluate(classifier, parameters, np.zeros((2, qubits)))
    assert probabilities.shape == (2, classes)
    assert circuits == 2
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    again = classifier.unflatten(classifier.flatten(parameters))
    assert all(np.array_equal(again[name], parameters[name]) for name in parameters)


def test_initial_follows_the_seed(binary: Classifier) -> None:
    same, other = binary.initial(3), binary.initial(4)
    assert np.array_equal(binary.initial(3)["angles"], same["angles"])
    assert not np.array_equal(other["angles"], same["angles"])


def test_parameters_of_another_shape_are_refused(binary: Classifier) -> None:
    prepared = binary.prepare(np.zeros((1, 2)))
    wrong = {**binary.initial(0), "scale": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"'scale': \(2,\).*the model's are"):
        binary.logits(wrong, prepared)
    broken = {**binary.initial(0), "bias": np.array([np.nan], np.float32)}
    with pytest.raises(ValueError, match="not finite"):
        binary.logits(broken, prepared)


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (2, {"qubits": 2}),
        (3, {"qubits": 4}),
        (3, {"qubits": 3, "block": "paper"}),
        (4, {"qubits": 4}),
        (2, {"qubits": 2, "model": "vqc"}),
    ],
)
def test_every_class_is_learned(classes: int, options: dict[str, object], blobs: Blobs) -> None:
    """Published defects 1 and 2: noise as input; one observable for all classes."""
    settings = QuantumSettings.model_validate(options)
    classifier = build_classifier(settings, classes)
    data = blobs(classes, settings.qubits, 48)
    start = classifier.initial(0)
    result = train_local(classifier, start, data, ADAM, UNTAUGHT, steps=120)
    test = blobs(classes, settings.qubits, 60, seed=1)
    probabilities, _ = evaluate(classifier, result.parameters, test.features)
    predicted = probabilities.argmax(axis=1)
    assert set(predicted) == set(range(classes))
    assert (predicted == test.labels).mean() > 0.85
    assert result.losses[-1] < 0.6 * result.losses[0]
    shuffled, _ = evaluate(classifier, result.parameters, np.zeros_like(test.features))
    assert (shuffled.argmax(axis=1) == test.labels).mean() < 0.85


def test_readouts_differ(blobs: Blobs) -> None:
    """Published defect 2: three outputs were one and the same observable."""
    classifier = build_classifier(QuantumSettings(readout="per-class"), 3)
    logits = classifier.logits(classifier.initial(0), classifier.prepare(blobs(3, 4, 12).features))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(logits[:, a] - logits[:, b]).max() > 0.1


@pytest.mark.parametrize("train", [ADAM, ADAM.model_copy(update={"batch_rows": 5}), COBYLA])
def test_same_seed_same_numbers(binary: Classifier, train: TrainSettings, blobs: Blobs) -> None:
    data = blobs(2, 2, 12)
    first, second = (
        train_local(binary, binary.initial(0), data, train, UNTAUGHT, steps=15, seed=7)
        for _ in range(2)
    )
    assert first.losses == second.losses
    for name, value in first.parameters.items():
        assert value.tobytes() == second.parameters[name].tobytes()


def test_mini_batches_follow_the_seed(binary: Classifier, blobs: Blobs) -> None:
    data = blobs(2, 2, 12)
    train = ADAM.model_copy(update={"batch_rows": 5})
    one, other = (
        train_local(binary, binary.initial(0), data, train, UNTAUGHT, steps=3, seed=s)
        for s in (1, 2)
    )
    assert one.losses != other.losses
    assert one.circuits == 3 * 5 * (1 + 2 * binary.angles)


def test_circuits_by_hand(binary: Classifier, blobs: Blobs) -> None:
    """6 angles: a gradient step of 10 rows is 10 (1 + 12) circuits; COBYLA 10 and 10 a step."""
    data = blobs(2, 2, 10)
    start = binary.initial(0)
    adam = train_local(binary, start, data, ADAM, UNTAUGHT, steps=4)
    assert (adam.steps, len(adam.losses), adam.circuits) == (4, 4, 4 * 10 * 13)
    cobyla = train_local(binary, start, data, COBYLA, UNTAUGHT, steps=4)
    assert (cobyla.steps, len(cobyla.losses), cobyla.circuits) == (4, 4, 10 + 40)
    assert (circuits_per_step(ADAM, 10, 6), circuits_per_step(COBYLA, 10, 6)) == (130, 10)
    assert (circuits_before_steps(ADAM, 10), circuits_before_steps(COBYLA, 10)) == (0, 10)


@pytest.mark.parametrize("train", [ADAM, COBYLA])
def test_the_loss_of_the_start_is_told(
    sensitive: Classifier, train: TrainSettings, blobs: Blobs
) -> None:
    data, start = blobs(2, 2, 10), sensitive.initial(0)
    result = train_local(sensitive, start, data, train, UNTAUGHT, steps=3)
    logits = torch.from_numpy(sensitive.logits(start, sensitive.prepare(data.features)))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels)).item()
    assert result.start_loss == pytest.approx(expected, rel=1e-5)
    assert (result.losses[0] == result.start_loss) == (train is ADAM)


def test_one_step_of_cobyla_moves(sensitive: Classifier, blobs: Blobs) -> None:
    """The start's own evaluation is no step: else one step a round would train nothing."""
    data, moved = blobs(2, 2, 20), []
    for seed in range(4):
        start = sensitive.initial(seed)
        result = train_local(sensitive, start, data, COBYLA, UNTAUGHT, steps=1)
        (loss,) = result.losses
        changed = any(not np.array_equal(result.parameters[k], start[k]) for k in start)
        assert changed == (loss < result.start_loss)
        moved.append(changed)
    assert any(moved)


def test_cobyla_lowers_the_loss(binary: Classifier, blobs: Blobs) -> None:
    data = blobs(2, 2, 20)
    result = train_local(binary, binary.initial(1), data, COBYLA, UNTAUGHT, steps=60)
    assert min(result.losses) < 0.7 * result.start_loss


def test_distillation_reaches_training(blobs: Blobs) -> None:
    """Published defect 3, end to end: a teacher that disagrees pulls the student away."""
    data = blobs(2, 2, 16)
    teacher = np.eye(2)[1 - data.labels] * 0.9 + 0.05
    taught = replace(data, soft_labels=teacher)
    student = build_classifier(QuantumSettings(qubits=2), 2)
    start = student.initial(0)
    plain = train_local(student, start, taught, ADAM, DistillSettings(weight=0.0), steps=60)
    swayed = train_local(student, start, taught, ADAM, DistillSettings(weight=1.0), steps=60)
    right = [
        (evaluate(student, r.parameters, data.features)[0].argmax(1) == data.labels).mean()
        for r in (plain, swayed)
    ]
    assert right[0] > 0.9
    assert right[1] < 0.1


FEATURES = DistillSettings(weight=0.0, features=50.0)


def test_every_way_to_the_loss_sees_the_features(sensitive: Classifier, blobs: Blobs) -> None:
    """Autograd, shifts and a difference quotient of plain values agree on the objective."""
    train = TrainSettings(proximal=0.1)
    hidden = np.random.default_rng(0).normal(size=(6, 5))
    data = replace(blobs(2, 2, 6), hidden=hidden)
    double = build_classifier(QuantumSettings(qubits=2, precision="double"), 2)
    plain = Problem(double, double.initial(0), data, train, DistillSettings(weight=0.0), 0)
    problem = Problem(double, double.initial(0), data, train, FEATURES, 0)
    start = problem.start + 0.1
    theta = torch.from_numpy(start)
    (loss, slope), (again, shifted) = problem.by_autograd(theta, 0), problem.by_shifts(theta, 0)
    features = torch.from_numpy(hidden - hidden.mean(axis=0))
    z = double.engine.expectations(theta[: double.angles], double.prepare(data.features))
    term = 50 * feature_distillation(z, teacher_similarity(features)).item()
    assert term > 0.1
    assert loss == pytest.approx(plain.by_autograd(theta, 0)[0] + term)
    assert again == pytest.approx(loss)
    assert problem.value(start) == pytest.approx(loss)
    measured, _ = problem.measure(start[None, : double.angles], start[double.angles :], 0)
    assert measured[0] == pytest.approx(loss)
    torch.testing.assert_close(shifted, slope, atol=1e-9, rtol=1e-6)
    step = 1e-5 * np.eye(len(start))
    quotient = [(problem.value(start + e) - problem.value(start - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(slope.numpy(), quotient, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "parameter-shift", "spsa", "cobyla"])
@pytest.mark.parametrize("rows", [0, 5])
def test_features_pull_the_readouts_apart(
    optimizer: str, rows: int, sensitive: Classifier, blobs: Blobs
) -> None:
    """Hidden states that tell the classes apart teach the pairs without any label."""
    data = blobs(2, 2, 12)
    hidden = np.where(data.labels, 1.0, -1.0)[:, None] * np.ones((12, 3))
    taught = replace(data, hidden=hidden, soft_labels=np.full((12, 2), 0.5))
    train = TrainSettings.model_validate(
        {"optimizer": optimizer, "batch_rows": rows, "learning_rate": 0.2}
    )
    alone = DistillSettings(weight=1.0, features=2000.0)
    start = sensitive.initial(1)
    result = train_local(sensitive, start, taught, train, alone, steps=60)

    def term(parameters: Mapping[str, np.ndarray]) -> float:
        angles = torch.as_tensor(parameters["angles"])
        z = sensitive.engine.expectations(angles, sensitive.prepare(data.features))
        states = torch.as_tensor(hidden - hidden.mean(axis=0), dtype=torch.float32)
        return feature_distillation(z, teacher_similarity(states)).item()

    assert term(result.parameters) < 0.8 * term(start)


def test_hidden_states_that_do_not_fit_are_refused(binary: Classifier, blobs: Blobs) -> None:
    data = blobs(2, 2, 4)
    for hidden in (None, np.zeros((3, 5)), np.zeros(4), np.full((4, 2), np.nan)):
        wrong = replace(data, hidden=hidden)
        with pytest.raises(DataError, match=r"hidden states of shape .*accepted: \(4, d\)"):
            train_local(binary, binary.initial(0), wrong, ADAM, FEATURES, steps=1)


def test_proximal_weight_holds_parameters_back(binary: Classifier, blobs: Blobs) -> None:
    data, start = blobs(2, 2, 16), binary.initial(0)
    held = ADAM.model_copy(update={"proximal": 10.0})
    flat = binary.flatten
    moves = [
        np.linalg.norm(
            flat(train_local(binary, start, data, t, UNTAUGHT, steps=40).parameters) - flat(start)
        )
        for t in (ADAM, held)
    ]
    assert moves[1] < 0.3 * moves[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, r"4 rows with labels of shape \(3,\)"),
        ({"labels": np.zeros(4)}, "type float64; accepted: one whole number per row"),
        ({"labels": np.array([0, 1, 2, 0])}, "labels from 0 to 2; accepted: 0 to 1"),
        ({"features": np.zeros((4, 3))}, r"features of shape \(4, 3\); accepted: \(rows, 2\)"),
        ({"features": np.full((4, 2), np.nan)}, r"8 feature\(s\) that are not finite"),
        ({"soft_labels": np.ones((4, 3))}, r"soft labels of shape \(4, 3\).*accepted: \(4, 2\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    binary: Classifier, change: dict[str, np.ndarray], message: str
) -> None:
    data = replace(
        TrainingData(np.zeros((4, 2)), np.zeros(4, np.int64), np.full((4, 2), 0.5)), **change
    )
    with pytest.raises(DataError, match=message):
        train_local(binary, binary.initial(0), data, ADAM, DistillSettings().in_round(1), steps=1)


def test_no_nan_leaves_silently(binary: Classifier, blobs: Blobs) -> None:
    data = replace(blobs(2, 2, 4), class_weights=np.array([np.nan, 1.0]))
    for train in (ADAM, COBYLA):
        with pytest.raises(UserError, match="loss is nan at step 0"):
            train_local(binary, binary.initial(0), data, train, UNTAUGHT, steps=2)


def test_read_only_arrays_serve(binary: Classifier, blobs: Blobs) -> None:
    """Arrays out of a message or a memory map are read-only; torch would warn."""
    data = replace(blobs(2, 2, 4), soft_labels=np.full((4, 2), 0.5), class_weights=np.ones(2))
    start = binary.initial(0)
    for array in (data.features, data.labels, data.soft_labels, data.class_weights):
        assert array is not None
        array.setflags(write=False)
    for array in start.values():
        array.setflags(write=False)
    result = train_local(binary, start, data, ADAM, DistillSettings().in_round(1), steps=1)
    evaluate(binary, result.parameters, data.features)


def test_drawing_belongs_to_the_classifier(binary: Classifier) -> None:
    assert binary.draw().startswith("<svg")
    assert binary.describe() == "QCNN paper, 2 qubits"
    assert binary.two_qubit_gates == 5
