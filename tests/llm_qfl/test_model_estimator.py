"""The federation as an estimator of scikit-learn."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import llm_qfl
from core import UserError
from llm_qfl.estimator import LlmQflClassifier

FEW = {
    "train.steps": 8,
    "quantum.qubits": 2,
    "distill.weight": 0.0,
    "agent.kind": "all",
    "features.kind": "kmer",
    "features.k": 2,
}


def rows(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    draw = random.Random(seed)
    labels = [number % 2 for number in range(count)]
    texts = [
        "".join(draw.choices("ACGT", (1, 3, 3, 1) if k else (3, 1, 1, 3), k=40)) for k in labels
    ]
    return texts, np.array(["low", "high"])[labels]


# The tags say texts: of the checks that make arrays of numbers scikit-learn itself runs none.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", SkipTestWarning)
    own_checks: Callable[[Callable[..., None]], Any] = parametrize_with_checks([LlmQflClassifier()])


@own_checks
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_it_learns_and_is_a_model() -> None:
    texts, labels = rows(80)
    classifier = LlmQflClassifier(clients=2, rounds=2, settings=FEW).fit(texts, labels)
    new, truth = rows(40, seed=1)
    assert list(classifier.classes_) == ["high", "low"]
    assert classifier.score(new, truth) > 0.8
    likely = classifier.predict_proba(new)
    assert likely.shape == (40, 2)
    assert np.array_equal(classifier.predict(new), classifier.classes_[likely.argmax(axis=1)])
    assert "Quantum classifier of" in classifier.model_.card()
    assert (
        "80 at 2 sites" in classifier.model_.card() or "training rows" in classifier.model_.card()
    )
    again = clone(classifier).fit(texts, labels)
    assert np.array_equal(again.predict_proba(new), likely)


def test_numbers_are_labels_and_it_can_be_cross_validated() -> None:
    texts, labels = rows(60)
    numbers = np.where(labels == "low", 7, 3)
    scores = cross_val_score(
        LlmQflClassifier(clients=2, rounds=1, settings=FEW), np.array(texts), numbers, cv=2
    )
    assert scores.shape == (2,)
    assert scores.mean() > 0.6


@pytest.mark.parametrize(
    ("texts", "labels", "says"),
    [
        ([[1.0, 2.0]], ["a"], "that holds no texts"),
        (["A"], ["a"], "labels of one class only"),
        (["A", "C"], ["a"], "2 rows with labels of shape"),
        ("ACGT", ["a"], "X is no sequence of rows"),
    ],
)
def test_what_cannot_be_learned_is_one_line(texts: Any, labels: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        LlmQflClassifier().fit(texts, labels)


def test_it_must_be_fitted_and_is_at_the_door() -> None:
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        llm_qfl.LlmQflClassifier().predict(["ACGT"])
    classifier = llm_qfl.LlmQflClassifier(rounds=2).set_params(clients=5)
    assert classifier.get_params()["clients"] == 5
