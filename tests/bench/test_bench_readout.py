"""The comparison of read-outs: scores by hand, and rows that are scored train nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bench.readout import Problem, balanced, draw, regression, scored, trained
from core import QuantumSettings
from quantum import build_classifier


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    weights = balanced(labels)
    assert weights.tolist() == [4 / 6, 2.0]
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.5, 0.5]])
    recall, loss = scored(probabilities, labels, weights)
    assert recall == pytest.approx(100 * (2 / 3 + 0) / 2)
    each = -np.log([0.8, 0.6, 0.4, 0.5])
    assert loss == pytest.approx((each[:3].mean() + each[3]) / 2)


def test_a_model_learns_what_the_regression_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    raw = 1.5 * np.eye(3)[labels] + rng.normal(size=(400, 3))
    one = draw(raw, labels, Problem(300, 2, 0.1), 100)
    assert [len(part) for part in one] == [300, 300, 100, 100]
    assert sorted([*one[1], *one[3]]) == sorted(labels)
    model = build_classifier(QuantumSettings(qubits=2), 3)
    recall, base = trained(model, 100, *one)[0], regression(*one)[0]
    assert recall > 60
    assert abs(recall - base) < 10
