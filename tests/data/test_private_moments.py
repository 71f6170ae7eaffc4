"""Noisy moments: what they are made of, and that a projection can still be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import (
    Moments,
    clip_rows,
    fit_projection,
    frequent_class_rows,
    implausible,
    merge_moments,
    moments_of,
    noisy_moments,
    repaired_moments,
)


def rows(seed: int = 0, count: int = 400, features: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    x = rng.normal(size=(count, features)) * np.linspace(1, 2, features)
    x[:, 0] += 3 * labels
    return x / np.abs(x).max() / features, labels


def test_rows_are_shortened_and_keep_their_direction() -> None:
    x = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(clip_rows(x, 1.0), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])


def test_noise_has_the_scale_of_what_a_row_can_change() -> None:
    x, labels = rows(features=40)
    moments = moments_of(x, labels, 2)
    drawn = [noisy_moments(moments, 2.0, 0.5, np.random.default_rng(seed)) for seed in range(40)]
    sums = np.stack([one.sums - moments.sums for one in drawn])
    second = np.stack([one.second - moments.second for one in drawn])
    assert sums.std() == pytest.approx(2.0 * 0.5, rel=0.05)
    assert second.std() == pytest.approx(2.0 * 0.25, rel=0.05)
    np.testing.assert_array_equal(drawn[0].second, drawn[0].second.T)
    np.testing.assert_array_equal(drawn[0].count, moments.count)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.1, 3), st.floats(-1, 1))
def test_another_row_changes_moments_by_no_more_than_the_noise_is_made_for(
    seed: int, features: int, bound: float, alike: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=features)
    y = alike * x + rng.normal(size=features) * (seed % 2)
    one, other = (moments_of(clip_rows([row], bound), [0], 2) for row in (5 * x, 5 * y))
    assert np.linalg.norm(one.sums - other.sums) <= 2 * bound * (1 + 1e-9)
    # Noise is drawn for the upper triangle; the lower repeats it.
    drawn = np.triu_indices(features)
    change = np.linalg.norm((one.second - other.second)[drawn])
    assert change <= np.sqrt(2) * bound**2 * (1 + 1e-9)


def test_the_bounds_of_that_change_are_reached() -> None:
    e, zero = np.eye(2), [0]
    parts = [moments_of([row], zero, 1) for row in (e[0], e[1], -e[0])]
    change = np.linalg.norm(np.triu(parts[0].second - parts[1].second))
    assert change == pytest.approx(np.sqrt(2))
    assert np.linalg.norm(parts[0].sums - parts[2].sums) == pytest.approx(2)


def test_a_class_that_a_site_lacks_is_told_nothing_of() -> None:
    x, labels = rows()
    moments = moments_of(x, 0 * labels, 2)
    assert not noisy_moments(moments, 5.0, 1.0, np.random.default_rng(0)).sums[1].any()


def test_mending_changes_nothing_that_is_whole() -> None:
    x, labels = rows()
    moments = moments_of(x, labels, 2)
    again = repaired_moments(moments)
    np.testing.assert_allclose(again.second, moments.second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["lda", "pca"])
def test_a_projection_can_be_fitted_whatever_the_noise(kind: str) -> None:
    x, labels = rows()
    parts = [moments_of(x[k::2], labels[k::2], 2) for k in range(2)]
    rng = np.random.default_rng(3)
    merged = merge_moments([noisy_moments(part, 50.0, 1.0, rng) for part in parts])
    assert np.linalg.eigvalsh(merged.within_covariance()).min() < 0
    whole = repaired_moments(merged)
    assert np.linalg.eigvalsh(whole.within_covariance()).min() > 0
    projection = fit_projection(whole, 3, kind, 0.1, 3.0, 0)  # type: ignore[arg-type]
    assert np.isfinite(projection.apply(x)).all()


def test_little_noise_leaves_the_projection_nearly_as_it_was() -> None:
    x, labels = rows(count=4000)
    moments = moments_of(x, labels, 2)
    noisy = repaired_moments(noisy_moments(moments, 0.01, 1.0, np.random.default_rng(1)))
    one, other = (fit_projection(m, 1, "lda", 0.1, 3.0, 0).apply(x) for m in (moments, noisy))
    assert np.corrcoef(one[:, 0], other[:, 0])[0, 1] > 0.99


def test_rows_of_a_class_with_few_of_them_are_marked() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    assert frequent_class_rows(labels, 4, 2).tolist() == [True] * 5 + [False]
    assert frequent_class_rows(labels, 4, 3).tolist() == [True] * 3 + [False] * 3
    assert frequent_class_rows(labels, 4, 0).all()
    assert frequent_class_rows([], 2, 5).shape == (0,)


def test_noisy_moments_of_a_site_are_bounded_by_its_rows() -> None:
    x, labels = rows(features=40)
    noisy = noisy_moments(moments_of(x, labels, 2), 2.0, 1.0, np.random.default_rng(0))
    doubled = Moments(noisy.count, noisy.sums * 20, noisy.second)
    wide = Moments(noisy.count, noisy.sums, noisy.second * 500)
    found = implausible([noisy, doubled, noisy, wide], 2.0, 1.0)
    assert sorted(found) == [1, 3]
    assert "above what its rows and the noise can make" in found[1]
