"""What guides training: soft labels by kind against closed forms; lambda and tau by validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional

from client_app.guidance import chosen_terms, soft_labels_of, tilted
from client_app.surrogate import choose_terms, fit_linear, objective
from core import DistillSettings
from quantum import TrainingData, distilled_loss
from quantum.losses import row_weights

LABELS = np.array([0, 1, 2, 1, 0, 1])


def logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(6, 3))


def data(soft: np.ndarray, weights: np.ndarray | None = None) -> TrainingData:
    return TrainingData(np.zeros((6, 2)), LABELS, soft, np.ones(3) if weights is None else weights)


@pytest.mark.parametrize("epsilon", [0.1, 0.7])
def test_smoothing_has_the_gradient_of_smoothed_labels(epsilon: float) -> None:
    leaf = torch.tensor(logits(), requires_grad=True)
    smoothed = functional.cross_entropy(leaf, torch.tensor(LABELS), label_smoothing=epsilon)
    (expected,) = torch.autograd.grad(smoothed, leaf)
    soft = soft_labels_of("smoothing", LABELS, np.zeros((6, 0)), 3, seed=0)
    terms = DistillSettings(kind="smoothing", weight=epsilon, temperature=5.0).in_round(1)
    given = leaf, torch.tensor(LABELS), torch.tensor(soft), terms.weight, terms.temperature
    (found,) = torch.autograd.grad(distilled_loss(*given), leaf)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_permuted_soft_labels_keep_each_classs_mean_and_no_rows_own() -> None:
    labels = np.repeat([0, 1], 50)
    taught = np.random.default_rng(1).dirichlet(np.ones(2), 100)
    dealt = soft_labels_of("permuted", labels, taught, 2, seed=3)
    for label in (0, 1):
        own = labels == label
        np.testing.assert_allclose(dealt[own].mean(axis=0), taught[own].mean(axis=0))
        assert sorted(dealt[own, 0]) == sorted(taught[own, 0])
    assert (dealt == taught).all(axis=1).mean() < 0.1
    np.testing.assert_array_equal(dealt, soft_labels_of("permuted", labels, taught, 2, seed=3))


def test_tilted_soft_labels_are_where_the_weighted_loss_is_least() -> None:
    """Rows of one kind, with labels in the ratio p: the best bias of a linear model is tilted p."""
    labels, weights = np.repeat([0, 1, 2], [50, 30, 20]), np.array([0.5, 1.0, 3.0])
    own = TrainingData(np.zeros((100, 1)), labels, None, weights)
    learned = np.exp(fit_linear(own, 0.0, 1.0).log_probabilities(np.zeros((1, 1))))
    np.testing.assert_allclose(tilted(np.array([[0.5, 0.3, 0.2]]), weights), learned, atol=1e-4)
    assert tilted(np.zeros((0, 0)), weights).shape == (0, 0)


def test_the_prior_is_the_sites_shares_of_the_classes() -> None:
    found = soft_labels_of("prior", LABELS, np.zeros((6, 0)), 4, seed=0)
    np.testing.assert_allclose(found, np.tile([2 / 6, 3 / 6, 1 / 6, 0], (6, 1)))


def test_objective_of_labelled_rows_is_the_loss_that_trains() -> None:
    soft, values = np.random.default_rng(2).dirichlet(np.ones(3), 6), logits()
    leaf = torch.tensor(values, requires_grad=True)
    expected = distilled_loss(leaf, torch.tensor(LABELS), torch.tensor(soft), 0.4, 2.5)
    (gradient,) = torch.autograd.grad(expected, leaf)
    found, slope = objective(values, data(soft), 0.4, 2.5)
    assert found == pytest.approx(expected.item(), abs=1e-12)
    np.testing.assert_allclose(slope, gradient, atol=1e-12)


def test_objective_of_rows_without_labels_is_the_formula() -> None:
    soft, values = np.random.default_rng(2).dirichlet(np.ones(3), 6), logits()
    weights, labels = np.array([0.5, 1.0, 3.0]), np.array([0, 1, 2, 1, -1, -1])
    own = TrainingData(np.zeros((6, 2)), labels, soft, weights)
    found, slope = objective(values, own, 0.4, 1.0)
    given = torch.tensor(values), torch.tensor(labels), torch.tensor(soft)
    same = distilled_loss(*given, 0.4, 1.0, torch.tensor(weights))
    assert found == pytest.approx(same.item(), abs=1e-12)
    q = softmax(values, axis=1)
    hard = sum(weights[y] * -np.log(q[r, y]) for r, y in enumerate(labels[:4]))
    hard /= weights[labels[:4]].sum()
    shares = np.array([*weights[labels[:4]], *(1 / (soft[4:] / weights).sum(axis=1))])
    kl = (soft * np.log(soft / q)).sum(axis=1)
    assert found == pytest.approx(0.6 * hard + 0.4 * (shares @ kl) / shares.sum())
    step = 1e-6
    for place in np.ndindex(values.shape):
        moved = values.copy()
        moved[place] += step
        change = (objective(moved, own, 0.4, 1.0)[0] - found) / step
        assert slope[place] == pytest.approx(change, abs=1e-5)


def blobs(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    return rng.normal(size=(rows, 2)) + 2.0 * (labels[:, None] - 0.5), labels


def test_the_linear_model_is_scikit_learns_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(60, 0)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    found = fit_linear(TrainingData(x, y, None, np.ones(2)), 0.0, 1.0).log_probabilities(x)
    # Two columns of half the size: the penalty of a softmax is half that of one logit.
    expected = LogisticRegression(C=2.0, tol=1e-8).fit(x, y).predict_log_proba(x)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_good_teacher_is_chosen_and_a_bad_one_left() -> None:
    x, y = blobs(30, 1)
    seen, truth = blobs(4000, 2)
    noisy = np.where(np.random.default_rng(3).random(30) < 0.35, 1 - y, y)
    right = 1 / (1 + np.exp(-2 * x.sum(axis=1)))  # Bayes' rule
    good = np.column_stack([1 - right, right])
    candidates = [(0.0, 1.0), (0.9, 1.0)]
    for soft, expected in ((good, 0.9), (good[:, ::-1], 0.0)):
        own = TrainingData(x, noisy, soft, np.ones(2))
        assert choose_terms(own, seen, truth, (0.3, 1.0), candidates)[0] == expected


@pytest.mark.parametrize(("losses", "kept"), [((0.0, 1.5), True), ((0.7, 0.9), False)])
def test_only_what_is_better_by_a_standard_error_is_chosen(
    monkeypatch: pytest.MonkeyPatch, losses: tuple[float, float], kept: bool
) -> None:
    """Both candidates gain 0.25 or 0.2 in the mean of two rows; one on one row alone."""

    class Fixed:
        def __init__(self, weight: float) -> None:
            self.losses = np.array(losses if weight else (1.0, 1.0))

        def log_probabilities(self, rows: np.ndarray) -> np.ndarray:
            return -np.column_stack([self.losses, self.losses])

    monkeypatch.setattr("client_app.surrogate.fit_linear", lambda data, weight, tau: Fixed(weight))
    own = TrainingData(np.zeros((2, 1)), np.array([0, 1]), None, np.ones(2))
    found = choose_terms(own, np.zeros((2, 1)), np.array([0, 1]), (0.0, 2.0), [(0.5, 2.0)])
    assert found == ((0.0, 2.0) if kept else (0.5, 2.0))


def test_numbers_in_the_settings_are_no_choice() -> None:
    x, y = blobs(20, 1)
    own = TrainingData(x, y, np.full((20, 2), 0.5), np.ones(2))
    assert chosen_terms(DistillSettings(weight=0.2), own, x, y) == (0.2, 2.0)
    smoothing = DistillSettings(kind="smoothing")
    assert chosen_terms(smoothing, own, x[:0], y[:0]) == (0.1, 1.0)
    assert chosen_terms(DistillSettings(kind="none"), own, x, y)[0] == 0.0


def test_a_row_without_a_label_weighs_what_its_labels_would_in_the_mean() -> None:
    """The teacher gives t; with labels drawn from t its rows would weigh the sum of t w."""
    teacher, weights = np.array([[0.7, 0.2, 0.1]]), np.array([0.5, 1.0, 3.0])
    soft = torch.tensor(tilted(teacher, weights))
    found = row_weights(torch.tensor([-1]), soft, torch.tensor(weights))
    assert found is not None
    assert found.item() == pytest.approx(0.7 * 0.5 + 0.2 * 1.0 + 0.1 * 3.0)
    sure = row_weights(torch.tensor([-1]), torch.tensor([[0.0, 1.0]]), torch.tensor([0.0, 2.0]))
    assert sure is not None
    assert sure.item() == 2.0  # as with the label; a class of no weight has no part in it
