"""Scores and baselines, against scikit-learn where it has the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import calibration, confusion_scores, linear_baseline, majority_baseline, scores


def test_scores_by_hand() -> None:
    p = [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]]
    found = scores([0, 0, 1, 1], p)
    assert found["accuracy"] == 0.5
    assert found["confusion"] == [[1, 1], [1, 1]]
    assert found["rows"] == 4
    assert found["macro_recall"] == 0.5
    assert found["macro_f1"] == 0.5
    assert found["loss"] == pytest.approx(-math.log(0.8 * 0.4 * 0.3 * 0.9) / 4)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 30))
def test_scores_agree_with_scikit_learn(seed: int, classes: int, rows: int) -> None:
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        f1_score,
        log_loss,
        recall_score,
    )

    rng = np.random.default_rng(seed)
    labels, p = rng.integers(classes, size=rows), rng.dirichlet(np.ones(classes), rows)
    found, guess, every = scores(labels, p), p.argmax(axis=1), list(range(classes))
    macro = {"labels": every, "average": "macro", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, guess, **macro))
    assert found["macro_recall"] == pytest.approx(recall_score(labels, guess, **macro))
    assert found["loss"] == pytest.approx(log_loss(labels, p, labels=every))
    assert found["confusion"] == confusion_matrix(labels, guess, labels=every).tolist()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4), st.lists(st.integers(1, 20), min_size=1))
def test_confusions_of_sites_add_up_to_that_of_all_rows(
    seed: int, classes: int, sites: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    rows = sum(sites)
    labels, p = rng.integers(classes, size=rows), rng.dirichlet(np.ones(classes), rows)
    whole = scores(labels, p)
    cuts = np.cumsum(sites)[:-1]
    parts = zip(np.split(labels, cuts), np.split(p, cuts), strict=True)
    summed = np.sum([scores(*part)["confusion"] for part in parts], axis=0)
    assert {**confusion_scores(summed), "loss": whole["loss"]} == whole


def test_scores_of_an_empty_confusion_are_zero() -> None:
    found = confusion_scores(np.zeros((2, 2), dtype=int))
    assert (found["accuracy"], found["macro_f1"], found["rows"]) == (0.0, 0.0, 0)


def test_a_probability_of_zero_costs_a_finite_loss() -> None:
    assert scores([1], [[1.0, 0.0]])["loss"] == pytest.approx(-math.log(1e-12))


def test_scores_need_rows_that_fit() -> None:
    with pytest.raises(ValueError, match="labels of shape"):
        scores([0, 1], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="labels of shape"):
        scores([], np.zeros((0, 2)))


def test_majority_predicts_the_training_rows_commonest_class() -> None:
    found = majority_baseline([0, 2, 2, 2], [2, 2, 0, 1], 3)
    assert found["accuracy"] == 0.5
    assert found["macro_recall"] == pytest.approx(1 / 3)
    assert found["confusion"] == [[0, 0, 1], [0, 0, 1], [0, 0, 2]]


def test_linear_baseline_finds_the_linear_signal_and_is_repeatable() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=600)
    x = rng.normal(size=(600, 5)) + 4 * np.eye(3, 5)[y]
    first, again = (linear_baseline(x[:400], y[:400], x[400:], y[400:], 3, 0) for _ in range(2))
    assert first["accuracy"] > 0.95
    assert first == again


def test_linear_baseline_ignores_the_scale_of_features() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=200)
    x = rng.normal(size=(200, 3)) + y[:, None]
    plain = linear_baseline(x, y, x, y, 2, 0)
    scaled = linear_baseline(x * [1e-4, 1, 1e4], y, x * [1e-4, 1, 1e4], y, 2, 0)
    assert scaled["loss"] == pytest.approx(plain["loss"], rel=1e-3)


def test_linear_baseline_with_a_class_that_training_rows_lack() -> None:
    x = np.array([[0.0, 1.0], [1.0, 1.0], [0.2, 1.0], [0.9, 1.0]])
    found = linear_baseline(x, [0, 2, 0, 2], x, [0, 2, 0, 2], 3, 0)
    assert found["confusion"] == [[2, 0, 0], [0, 0, 0], [0, 0, 2]]


def test_a_balanced_baseline_finds_rare_classes() -> None:
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1], (900, 100))
    x = rng.normal(size=(1000, 1)) + 1.5 * y[:, None]
    plain, balanced = (linear_baseline(x, y, x, y, 2, 0, weigh) for weigh in (False, True))
    assert balanced["macro_recall"] > plain["macro_recall"] + 0.1
    assert balanced["accuracy"] < plain["accuracy"]


def test_linear_baseline_of_one_class_is_the_majority() -> None:
    assert linear_baseline([[0.0], [1.0]], [1, 1], [[0.5]], [1], 2, 0)["accuracy"] == 1.0


def test_calibration_of_a_hand_made_case() -> None:
    # Confidence 0.9 four times and right thrice; confidence 0.6 twice and right once.
    sure, unsure = [0.9, 0.1], [0.6, 0.4]
    found = calibration([0, 0, 0, 1, 0, 1], [sure] * 4 + [unsure] * 2)
    assert [one["rows"] for one in found["calibration"]] == [2, 4]
    assert [one["accuracy"] for one in found["calibration"]] == [0.5, 0.75]
    assert found["calibration_error"] == pytest.approx((2 * 0.1 + 4 * 0.15) / 6)


def test_calibration_is_scikit_learns() -> None:
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 400)
    right = rng.random(400) < p**2
    shares, confidence = calibration_curve(right, p, n_bins=10)
    found = calibration(1 - right.astype(int), np.stack([p, 1 - p], axis=1))["calibration"]
    assert [one["accuracy"] for one in found] == pytest.approx(list(shares))
    assert [one["confidence"] for one in found] == pytest.approx(list(confidence))
