"""Compiled training, of one client and of many, against the plain loop of torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core import DataError, DistillSettings, QuantumSettings, TrainSettings, UserError
from quantum import (
    TrainingData,
    TrainTask,
    build_classifier,
    train_local,
    train_together,
)
from quantum.engines.pauli import PauliEngine
from quantum.training import compiled
from quantum.training.compiled import can_compile
from quantum.training.optimisers import run_adam
from quantum.training.problem import Problem
from quantum.training.schedule import learning_rate

RNG = np.random.default_rng(0)


def task(
    classes: int = 2,
    rows: int = 13,
    steps: int = 12,
    weight: float = 0.6,
    readout: Any = "per-class",
    **train: Any,
) -> TrainTask:
    classifier = build_classifier(QuantumSettings(qubits=3, readout=readout), classes)
    labels = RNG.integers(0, classes, rows)
    if weight > 0:
        labels[::4] = -1  # rows without a label
    data = TrainingData(
        RNG.uniform(-1.5, 1.5, (rows, 3)),
        labels,
        RNG.dirichlet(np.ones(classes), rows),
        np.linspace(0.5, 2.0, classes),
    )
    start = classifier.initial(int(RNG.integers(1000)))
    start["angles"] = RNG.normal(size=classifier.angles)  # where every angle matters
    distill = DistillSettings(weight=weight, temperature=3.0)
    settings = TrainSettings(**{"learning_rate": 0.05, **train})
    return TrainTask(classifier, start, data, settings, distill, steps, 0, 7)


def by_torch(one: TrainTask) -> tuple[np.ndarray, list[float]]:
    problem = Problem(one.classifier, one.parameters, one.data, one.train, one.distill, one.seed)
    rate = learning_rate(one.train, one.step_offset)
    theta, losses = run_adam(problem.by_autograd, problem.anchor, one.steps, rate)
    return theta.numpy(), losses


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"weight": 0.0},
        {"weight": 1.0},
        {},
        {"batch_rows": 4, "steps": 9},
        {"batch_rows": 1, "steps": 9},
        {"readout": "linear"},
        {"readout": "linear-zz", "batch_rows": 4},
        {"readout": "linear", "weight": 0.0},
        {"proximal": 0.5},
        {"schedule": "inverse-time"},
    ],
    ids=str,
)
def test_the_compiled_loop_is_that_of_torch(classes: int, options: dict[str, Any]) -> None:
    one = task(classes, **options)
    assert can_compile(one)
    theta, losses = by_torch(one)
    (found,) = train_together([one])
    assert not isinstance(found, Exception)
    np.testing.assert_allclose(found.losses, losses, rtol=0, atol=1e-10)
    ours = one.classifier.flatten(found.parameters)
    np.testing.assert_allclose(ours, theta, atol=1e-5)  # sent as float32


def same(first: Any, second: Any) -> bool:
    names = first.parameters.keys()
    return first.losses == second.losses and all(
        np.array_equal(first.parameters[name], second.parameters[name]) for name in names
    )


def test_many_clients_are_each_alone() -> None:
    """Unequal rows, steps, settings and circuits in one call: the same to the last digit."""
    tasks = [
        task(
            2 + k % 2,
            rows=3 + k % 11,
            steps=1 + k % 4,
            weight=(0.0, 0.3)[k % 5 > 0],
            proximal=0.1 * (k % 3),
            batch_rows=(0, 0, 2)[k % 3],
            readout=("per-class", "linear", "linear-zz")[k % 7 % 3],
        )
        for k in range(150)
    ]
    tasks[7] = replace(tasks[7], step_offset=5, train=TrainSettings(schedule="inverse-time"))
    found = train_together(tasks)
    assert len(found) == len(tasks)
    for one, together in zip(tasks, found, strict=True):
        alone = train_local(
            *(one.classifier, one.parameters, one.data, one.train, one.distill, one.steps),
            *(one.step_offset, one.seed),
        )
        assert same(together, alone)


def test_lanes_side_by_side_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task() for _ in range(20)]
    whole = train_together(tasks)
    monkeypatch.setattr(compiled, "MOST_LANES", 1)
    assert all(same(a, b) for a, b in zip(whole, train_together(tasks), strict=True))


def with_backend(one: TrainTask, backend: str) -> TrainTask:
    settings = QuantumSettings(qubits=3, backend=backend, readout="per-class")
    return replace(one, classifier=build_classifier(settings, one.classifier.classes))


def test_one_client_s_failure_is_its_own() -> None:
    good, wrong, wild, nan = task(), task(), task(), task()
    wrong = replace(wrong, data=replace(wrong.data, labels=np.array([5] * 13)))
    wild = replace(wild, train=TrainSettings(learning_rate=1e308, schedule="constant"))
    features = np.array(nan.data.features)
    features[2, 1] = np.nan
    nan = replace(nan, data=replace(nan.data, features=features))
    other = with_backend(task(), "pennylane:default.qubit")
    assert not can_compile(other)
    found = train_together([good, wrong, wild, nan, other])
    assert same(found[0], train_together([good])[0])
    assert isinstance(found[1], DataError)
    assert isinstance(found[2], UserError)
    assert "at step 0 (its parameters would be lost)" in str(found[2])
    assert isinstance(found[3], DataError)
    assert same(found[4], train_together([other])[0])


def weighted(one: TrainTask, weights: list[float]) -> TrainTask:
    return replace(one, data=replace(one.data, class_weights=np.array(weights)))


def test_class_weights_that_do_not_fit_are_refused() -> None:
    """The compiled loops check no index: too few weights would be read from behind their end."""
    good = task()
    found = train_together([good, weighted(task(), [1.0]), weighted(task(), [1.0, 2.0, 3.0])])
    assert same(found[0], train_together([good])[0])
    assert "class weights of shape (1,); accepted: (2,)" in str(found[1])
    assert "class weights of shape (3,); accepted: (2,)" in str(found[2])


def test_a_client_whose_rows_all_weigh_nothing_fails_alone() -> None:
    good, none = task(), weighted(task(), [0.0, 1.0])
    none = replace(none, data=replace(none.data, labels=np.zeros(13, dtype=np.int64)))
    found = train_together([good, none])
    assert same(found[0], train_together([good])[0])
    assert "loss is nan at step 0" in str(found[1])


def test_rows_with_no_label_need_a_teacher() -> None:
    (found,) = train_together([replace(task(), distill=DistillSettings(weight=0.0))])
    assert "labels from -1 to 1; accepted: 0 to 1, or -1 (no label) where" in str(found)


def test_a_step_may_have_no_labelled_row() -> None:
    """Its cross-entropy is zero, not NaN, and what it learns is the teacher's."""
    one = task(rows=4, steps=3)
    one = replace(one, data=replace(one.data, labels=np.full(4, -1)))
    (found,) = train_together([one])
    assert not isinstance(found, Exception)
    np.testing.assert_allclose(found.losses, by_torch(one)[1], rtol=0, atol=1e-10)


def test_what_the_loops_lack_goes_through_torch() -> None:
    one = task()
    states = RNG.normal(size=(13, 5))
    hidden = replace(
        one,
        data=replace(one.data, hidden=states),
        distill=DistillSettings(features=0.5).in_round(1),
    )
    assert not can_compile(hidden)
    assert not can_compile(replace(one, train=TrainSettings(optimizer="spsa")))
    assert can_compile(one)
    assert not [x for x in train_together([hidden]) if isinstance(x, Exception)]


def test_evaluation_is_that_of_torch() -> None:
    for classes in (2, 3):
        one = task(classes)
        assert isinstance(one.classifier.engine, PauliEngine)
        encoded = one.classifier.prepare(one.data.features)
        theta = np.array(one.classifier.flatten(one.parameters))
        import torch

        logits = one.classifier.logits_tensor(torch.from_numpy(theta), encoded).numpy()
        np.testing.assert_allclose(one.classifier.logits(one.parameters, encoded), logits)
