"""The linear probe of features: closed form, then scikit-learn's LDA on projected rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from core import DataError
from data import (
    SHRINKAGES,
    Moments,
    Probe,
    fit_probe,
    fit_projection,
    merge_moments,
    moments_of,
    varying_directions,
)
from tests.data.test_projection import cloud, exact_moments


def test_two_gaussian_classes_by_hand() -> None:
    # Means -1 and 1, variance 1 within and 2 in all: z = x / sqrt(2) has variance 1/2 within, so
    # logit_1 - logit_0 = (2 / sqrt 2) / (1/2) * x / sqrt 2 = 2 x, and log(w_1 / w_0) with weights.
    moments = exact_moments(np.array([[-1.0], [1.0]]), np.eye(1), np.array([50.0, 50.0]))
    probe = fit_probe(moments, (1,), (0.1, 0.9), (1.0, 3.0))
    slope = probe.matrix[:, 0, 0] * (probe.weights[:, 0, 0, 1] - probe.weights[:, 0, 0, 0])
    np.testing.assert_allclose(slope, 2, rtol=1e-5)
    np.testing.assert_allclose(probe.bias[:, 0, 1] - probe.bias[:, 0, 0], np.log(3), rtol=1e-9)
    # Rows at 0.5 and -2 of class 1 and 0 have logits 2 x + log 3 for class 1; weights 3 and 1.

    def nats(first: float, second: float) -> float:
        p = 1 / (1 + np.exp(-np.array([first, second])))
        return float(np.mean([-3, -1] * np.log(0.95 * p + 0.05 / 2)))

    expected = nats(1 + np.log(3), 4 - np.log(3))
    losses, spreads = probe.losses([[0.5], [-2.0]], [1, 0], (1.0, 3.0), clip=3.0)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert not spreads.any()
    # Clipped at half a deviation, sqrt(2) / 2 of x: the second row counts as one at -0.707.
    expected = nats(1 + np.log(3), 2**0.5 - np.log(3))
    losses, _ = probe.losses([[0.5], [-2.0]], [1, 0], (1.0, 3.0), clip=0.5)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_scikit_learns_lda_of_the_pooled_projected_rows(seed: int, weighted: bool) -> None:
    x, y = cloud(seed, rows=120, features=8)
    x[:, 5] = 3.25  # a feature that does not vary says nothing
    sites = np.random.default_rng(seed).integers(3, size=120)
    parts = [moments_of(x[sites == k], y[sites == k], 3) for k in range(3)]
    weights = 40 / np.bincount(y) if weighted else np.ones(3)
    moments = merge_moments(parts)
    probe = fit_probe(moments, (3, 4, 5), SHRINKAGES, weights)
    assert probe.tried == (len(SHRINKAGES), 3)
    assert probe.widths == (3, 4, 5)
    unseen, labels = cloud(seed + 10, rows=50, features=8)
    unseen[:, 5] = 3.25
    losses, spreads = probe.losses(unseen, labels, weights, clip=3.0)
    for s, shrinkage in enumerate(SHRINKAGES):
        projection = fit_projection(moments, 5, "lda", shrinkage, 3.0, 0)
        seen, z = (
            (r - projection.mean) @ projection.matrix / projection.scale for r in (x, unseen)
        )
        z, each = np.clip(z, -3, 3), []
        for n in (3, 4, 5):
            model = LinearDiscriminantAnalysis(solver="lsqr")
            p = weights * model.fit(seen[:, :n], y).predict_proba(z[:, :n])
            p /= p.sum(axis=1, keepdims=True)
            each.append(-weights[labels] * np.log(0.95 * p[np.arange(50), labels] + 0.05 / 3))
        np.testing.assert_allclose(losses[s], np.mean(each, axis=1), rtol=1e-3)
        far = np.sqrt(np.mean((np.array(each) - each[-1]) ** 2, axis=1))
        np.testing.assert_allclose(spreads[s], far, rtol=1e-2, atol=1e-9)


def test_the_order_of_the_sites_changes_nothing() -> None:
    x, y = cloud(3, rows=90)
    parts = [moments_of(x[k::3], y[k::3], 3) for k in range(3)]
    one, other = (
        fit_probe(merge_moments(found), (2, 3), (0.1,), np.ones(3)).losses(x, y, np.ones(3), 3.0)
        for found in (parts, parts[::-1])
    )
    np.testing.assert_allclose(one, other, rtol=1e-7)


def test_a_class_without_rows_is_never_expected() -> None:
    x, y = cloud(4, classes=2)
    probe = fit_probe(moments_of(x, y, 3), (2,), (0.1,), np.ones(3))
    alone = fit_probe(moments_of(x, y, 2), (2,), (0.1,), np.ones(2))
    np.testing.assert_allclose(probe.bias[..., :2], alone.bias, rtol=1e-9)
    np.testing.assert_allclose(probe.weights[..., :2], alone.weights, rtol=1e-9)
    assert probe.bias[0, 0, 2] < -27
    assert not probe.weights[..., 2].any()


@pytest.mark.parametrize("kind", ["pca", "random"])
def test_the_probe_projects_as_the_run_would(kind: str) -> None:
    x, y = cloud(6, rows=90)
    moments = moments_of(x, y, 3)
    probe = fit_probe(moments, (4,), (0.1,), np.ones(3), kind=kind, clip=2.0, seed=5)  # type: ignore[arg-type]
    projection = fit_projection(moments, 4, kind, 0.1, 2.0, 5)  # type: ignore[arg-type]
    np.testing.assert_allclose(probe.matrix[0], projection.matrix / projection.scale)


def test_directions_that_vary_are_counted() -> None:
    x, y = cloud(7, rows=60)
    x = np.hstack([x, x[:, :2], np.ones((60, 1))])
    assert varying_directions(moments_of(x, y, 3)) == x.shape[1] - 3


def test_moments_of_no_rows_are_refused() -> None:
    x, y = cloud(5)
    found = moments_of(x, y, 3)
    apart = found.sums.copy()  # as far apart as no rows of this covariance are; the mean stays
    apart[0] += 1e3
    apart[1] -= 1e3
    with pytest.raises(DataError, match="moments of 6 features that are no covariance"):
        fit_probe(Moments(found.count, apart, found.second), (2,), (0.1,), np.ones(3))


def test_shapes_are_checked() -> None:
    with pytest.raises(DataError, match=r"a probe of shapes \(4,\), \(1, 4, 2\), \(1, 1, 3, 2\)"):
        Probe(np.zeros(4), np.zeros((1, 4, 2)), np.zeros((1, 1, 3, 2)), np.zeros((1, 1, 2)))
    whole = Probe(np.zeros(4), np.zeros((1, 4, 2)), np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2)))
    with pytest.raises(DataError, match=r"features of shape \(2, 5\); accepted: \(rows, 4\)"):
        whole.losses(np.zeros((2, 5)), [0, 1], np.ones(2), 3.0)
