"""Temperature scaling and a teacher's figures, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.calibration import (
    HIGHEST,
    accuracy,
    fit_temperature,
    log_softmax,
    loss,
    macro_f1,
    mean_nll,
    softmax,
)


@pytest.mark.parametrize(("odds", "scale"), [(3, 4.0), (9, 2.5), (2, 0.7)])
def test_temperature_closed_form(odds: int, scale: float) -> None:
    # All rows have logits (z, 0) and a share odds / (odds + 1) of them is class 0: the likelihood
    # is largest where z / T = log(odds), so T = z / log(odds).
    logits = np.tile([scale, 0.0], (odds + 1, 1))
    labels = np.array([0] * odds + [1])
    expected = scale / np.log(odds)
    assert fit_temperature(logits, labels, (0.01, 100)) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.3, 8.0), st.integers(0, 10**6))
def test_temperature_is_no_worse_than_a_grid(factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits)])
    scaled = factor * logits
    best = mean_nll(scaled, labels, fit_temperature(scaled, labels))
    grid = [mean_nll(scaled, labels, float(t)) for t in np.geomspace(0.21, 9.9, 60)]
    assert best <= min(grid) + 1e-9


@pytest.mark.parametrize(
    "labels", [[], [1, 1, 1], [0, 1, 1]], ids=["no rows", "one class", "all right"]
)
def test_rows_that_say_nothing_leave_the_temperature(labels: list[int]) -> None:
    logits = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 1.0]])[: len(labels)]
    assert fit_temperature(logits, np.array(labels, dtype=int)) == 1.0


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.floats(0.3, 6.0), st.floats(0.2, 2.0), st.integers(0, 10**6))
def test_what_was_thought_before_draws_the_temperature_to_1(
    rows: int, factor: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = factor * rng.normal(size=(rows, 3))
    labels = rng.integers(3, size=rows)
    free = fit_temperature(logits, labels)
    drawn = fit_temperature(logits, labels, spread=spread)
    assert abs(np.log(drawn)) <= abs(np.log(free)) + 1e-4
    if free == 1.0 or not 0.21 < drawn < 9.9:
        return

    def slope(at: float) -> float:
        up, down = (mean_nll(logits, labels, float(np.exp(at + h))) for h in (1e-4, -1e-4))
        return rows * (up - down) / 2e-4 + at / spread**2

    assert slope(np.log(drawn)) == pytest.approx(0, abs=0.02 + 1e-3 * rows)


def test_many_rows_decide_alone() -> None:
    logits, labels = np.tile([4.0, 0.0], (4000, 1)), np.array([0, 0, 0, 1] * 1000)
    assert fit_temperature(logits, labels, spread=0.5) == pytest.approx(4 / np.log(3), rel=1e-2)


def test_temperature_stays_in_bounds_where_the_model_is_always_wrong() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(HIGHEST, rel=1e-3)


def test_softmax_closed_form_and_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])
    np.testing.assert_allclose(softmax(np.log([[1.0, 4.0]]), 2.0), [[1 / 3, 2 / 3]])
    assert np.isfinite(log_softmax(np.array([[1e4, -1e4]], dtype=np.float32))).all()
    assert softmax(np.zeros((0, 3))).shape == (0, 3)
    assert mean_nll(np.zeros((4, 5)), np.zeros(4, dtype=int)) == pytest.approx(np.log(5))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 5), st.floats(0.1, 100))
def test_figures_agree_with_scikit_learn_and_the_scores_of_data(
    seed: int, rows: int, classes: int, scale: float
) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    from data import scores

    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(rows, classes))
    labels = rng.integers(classes, size=rows)
    predicted = logits.argmax(axis=1)
    assert accuracy(logits, labels) == pytest.approx(accuracy_score(labels, predicted))
    expected = f1_score(labels, predicted, labels=range(classes), average="macro", zero_division=0)
    assert macro_f1(logits, labels) == pytest.approx(expected)
    expected = scores(labels, softmax(logits))
    assert macro_f1(logits, labels) == pytest.approx(expected["macro_f1"])
    assert loss(logits, labels) == pytest.approx(expected["loss"])


def test_reported_loss_is_bounded() -> None:
    logits, labels = np.array([[1e3, 0.0], [0.0, 0.0]]), np.array([1, 0])
    assert loss(logits, labels) == pytest.approx((-np.log(1e-12) + np.log(2)) / 2)
    assert mean_nll(logits, labels) == pytest.approx((1000 + np.log(2)) / 2)
    assert loss(logits, labels, 1e3) == pytest.approx(mean_nll(logits, labels, 1e3))
