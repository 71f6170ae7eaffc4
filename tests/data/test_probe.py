"""The linear probe of features: closed form, then scikit-learn's LDA on the pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from core import DataError
from data import Moments, Probe, fit_probe, merge_moments, moments_of
from data.probe import SHRINKAGES
from tests.data.test_projection import cloud, exact_moments


def test_two_gaussian_classes_by_hand() -> None:
    # Means -1 and 1, variance 1 within and 2 in all: x / sqrt(2) has variance 1/2 within, so
    # without shrinkage logit_1 - logit_0 = (2 / sqrt 2) / (1/2) * x / sqrt 2 = 2 x; and the trace
    # of one feature is its variance, so that shrinkage changes nothing.
    moments = exact_moments(np.array([[-1.0], [1.0]]), np.eye(1), np.array([50.0, 50.0]))
    probe = fit_probe(moments)
    np.testing.assert_allclose(probe.weights[:, 0, 1] - probe.weights[:, 0, 0], 2, rtol=1e-9)
    np.testing.assert_allclose(probe.bias[:, 1] - probe.bias[:, 0], 0, atol=1e-12)
    expected = np.log1p(np.exp(-2 * np.array([0.5, 2.0]))).mean()
    np.testing.assert_allclose(probe.losses([[0.5], [-2.0]], [1, 0]), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_scikit_learns_lda_of_the_pooled_rows(seed: int) -> None:
    x, y = cloud(seed, rows=120, features=8)
    x[:, 5] = 3.25  # a feature that does not vary says nothing
    sites = np.random.default_rng(seed).integers(3, size=120)
    parts = [moments_of(x[sites == k], y[sites == k], 3) for k in range(3)]
    probe = fit_probe(merge_moments(parts))
    unseen, labels = cloud(seed + 10, rows=50, features=8)
    unseen[:, 5] = 3.25
    varies = np.arange(8) != 5
    mean, scale = x[:, varies].mean(axis=0), x[:, varies].std(axis=0)
    for s, shrinkage in enumerate(SHRINKAGES):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
        standard = (x[:, varies] - mean) / scale
        within = sum((y == c).mean() * np.cov(standard[y == c].T, bias=True) for c in range(3))
        shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / 7 * np.eye(7)
        model.fit(standard, y)
        np.testing.assert_allclose(model.covariance_, shrunk, rtol=1e-9)
        p = model.predict_proba((unseen[:, varies] - mean) / scale)
        loss = -np.log(np.maximum(p[np.arange(50), labels], 1e-12)).mean()
        assert probe.losses(unseen, labels)[s] == pytest.approx(loss, rel=1e-6)


def test_the_order_of_the_sites_changes_nothing() -> None:
    x, y = cloud(3, rows=90)
    parts = [moments_of(x[k::3], y[k::3], 3) for k in range(3)]
    one, other = (fit_probe(merge_moments(found)).losses(x, y) for found in (parts, parts[::-1]))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_class_without_rows_is_never_expected() -> None:
    x, y = cloud(4, classes=2)
    probe = fit_probe(moments_of(x, y, 3))
    alone = fit_probe(moments_of(x, y, 2))
    np.testing.assert_allclose(probe.losses(x, y), alone.losses(x, y), rtol=1e-6)


def test_moments_of_no_rows_are_refused() -> None:
    x, y = cloud(5)
    found = moments_of(x, y, 3)
    with pytest.raises(DataError, match="moments of 6 features that are no covariance"):
        fit_probe(Moments(found.count, 50 * found.sums, found.second))


def test_shapes_are_checked() -> None:
    with pytest.raises(DataError, match=r"a probe of shapes \(3, 4, 2\), \(3, 3\)"):
        Probe(np.zeros((3, 4, 2)), np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"features of shape \(2, 5\); accepted: \(rows, 4\)"):
        Probe(np.zeros((3, 4, 2)), np.zeros((3, 2))).losses(np.zeros((2, 5)), [0, 1])
