"""Moments and the federated projection: closed forms, then scikit-learn as second method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from core import DataError
from data import Moments, Projection, fit_projection, merge_moments, moments_of
from data.projection import fit_projections


def cloud(
    seed: int, rows: int = 400, features: int = 6, classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Correlated Gaussian classes with means apart, features of unequal scale and offset."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=rows)
    mix, centres = rng.normal(size=(features, features)), rng.normal(size=(classes, features))
    x = rng.normal(size=(rows, features)) @ mix + 2 * centres[y]
    return x * np.logspace(-2, 1, features) + 3, y


def exact_moments(means: np.ndarray, covariance: np.ndarray, rows: np.ndarray) -> Moments:
    """Moments that a Gaussian mixture has in expectation."""
    outer = sum(n * (covariance + np.outer(m, m)) for n, m in zip(rows, means, strict=True))
    return Moments(rows, rows[:, None] * means, np.asarray(outer))


def parallel(a: np.ndarray, b: np.ndarray) -> float:
    """Absolute cosine between two vectors."""
    return float(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_moments_by_hand() -> None:
    found = moments_of([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0, 1, 0], 3)
    assert found.count.tolist() == [2, 1, 0]
    assert found.sums.tolist() == [[6, 8], [3, 4], [0, 0]]
    assert found.second.tolist() == [[35, 44], [44, 56]]


def test_covariances_by_definition() -> None:
    x, y = cloud(0)
    found = moments_of(x, y, 3)
    np.testing.assert_allclose(found.total_covariance(), np.cov(x.T, bias=True), atol=1e-10)
    within = sum((y == c).mean() * np.cov(x[y == c].T, bias=True) for c in range(3))
    np.testing.assert_allclose(found.within_covariance(), within, atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_summed_over_sites_equals_pooled(seed: int, sites: int) -> None:
    x, y = cloud(seed, rows=60)
    site = np.random.default_rng(seed).integers(sites, size=60)
    summed = merge_moments([moments_of(x[site == s], y[site == s], 3) for s in range(sites)])
    pooled = moments_of(x, y, 3)
    np.testing.assert_array_equal(summed.count, pooled.count)
    np.testing.assert_allclose(summed.sums, pooled.sums, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(summed.second, pooled.second, rtol=1e-12)


@pytest.mark.parametrize("kind", ["lda", "pca", "random"])
def test_federated_projection_equals_the_pooled_one(kind: str) -> None:
    x, y = cloud(1)
    halves = merge_moments([moments_of(x[::2], y[::2], 3), moments_of(x[1::2], y[1::2], 3)])
    federated, pooled = (
        fit_projection(m, 4, kind, 0.1, 3.0, 5)  # type: ignore[arg-type]
        for m in (halves, moments_of(x, y, 3))
    )
    np.testing.assert_allclose(federated.apply(x), pooled.apply(x), atol=1e-5)


def test_lda_of_two_gaussians_in_closed_form() -> None:
    """The direction is Sigma^-1 (mu_1 - mu_0)."""
    covariance = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 0.5]])
    means = np.array([[0.0, 1.0, -1.0], [0.5, -1.0, 2.0]])
    moments = exact_moments(means, covariance, np.array([300.0, 100.0]))
    found = fit_projection(moments, 1, "lda", 0.0, 3.0, 0)
    expected = np.linalg.solve(covariance, means[1] - means[0])
    assert parallel(found.matrix[:, 0], expected) == pytest.approx(1, abs=1e-10)


def test_lda_wholly_shrunk_is_the_difference_of_means_of_standardised_features() -> None:
    covariance, means = np.diag([4.0, 1.0]), np.array([[0.0, 0.0], [2.0, 1.0]])
    moments = exact_moments(means, covariance, np.array([50.0, 50.0]))
    found = fit_projection(moments, 1, "lda", 1.0, 3.0, 0)
    variances = np.diag(moments.total_covariance())
    assert parallel(found.matrix[:, 0], means[1] / variances) == pytest.approx(1, abs=1e-10)


def test_lda_agrees_with_scikit_learn() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = cloud(2)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, y).scalings_[:, :2]
    ours = fit_projection(moments_of(x, y, 3), 2, "lda", 0.0, 3.0, 0).matrix
    for column in range(2):
        assert parallel(ours[:, column], theirs[:, column]) == pytest.approx(1, abs=1e-6)


def test_shrunk_lda_agrees_with_scikit_learn() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = cloud(3, classes=2)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    # Its shrinkage takes each class's own mean variance; the rows' mean of these is ours.
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(standard, y).coef_[0]
    ours = fit_projection(moments_of(x, y, 2), 1, "lda", 0.3, 3.0, 0).matrix[:, 0] * x.std(axis=0)
    assert parallel(ours, theirs) == pytest.approx(1, abs=1e-6)


def test_pca_agrees_with_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    x, y = cloud(4)
    theirs = PCA(3, svd_solver="full").fit((x - x.mean(axis=0)) / x.std(axis=0)).components_
    ours = fit_projection(moments_of(x, y, 3), 3, "pca", 0.1, 3.0, 0).matrix
    for column in range(3):
        direction = ours[:, column] * x.std(axis=0)
        assert parallel(direction, theirs[column]) == pytest.approx(1, abs=1e-8)


def test_after_lda_come_principal_directions_of_the_residual() -> None:
    x, y = cloud(5)
    deviation = x.std(axis=0)
    found = fit_projection(moments_of(x, y, 3), 4, "lda", 0.1, 3.0, 0).matrix * deviation[:, None]
    lda, rest = found[:, :2], found[:, 2:]
    np.testing.assert_allclose(lda.T @ rest, 0, atol=1e-10)
    np.testing.assert_allclose(rest.T @ rest, np.eye(2), atol=1e-10)
    # Second method: remove the directions from the rows, then a singular value decomposition.
    basis = np.linalg.qr(lda)[0]
    standard = (x - x.mean(axis=0)) / deviation
    residual = standard - standard @ basis @ basis.T
    expected = np.linalg.svd(residual, full_matrices=False)[2][:2]
    for column in range(2):
        assert parallel(rest[:, column], expected[column]) == pytest.approx(1, abs=1e-8)


def slow_lda(moments: Moments, weights: np.ndarray, qubits: int, shrinkage: float) -> np.ndarray:
    """The directions by the eigenproblem in all d dimensions, as the module states it."""
    between, within = (
        covariance * np.outer(weights, weights)
        for covariance in (moments.between_covariance(), moments.within_covariance())
    )
    size, wanted = len(weights), min(int((moments.count > 0).sum()) - 1, qubits)
    shrunk = (1 - shrinkage) * within
    shrunk += np.eye(size) * (shrinkage * np.trace(within) / size + 1e-8)
    found = scipy.linalg.eigh(between, shrunk)[1][:, ::-1][:, :wanted]
    basis = np.linalg.qr(found, mode="complete")[0][:, wanted:]
    rest = np.linalg.eigh(basis.T @ (within + between) @ basis)[1][:, ::-1]
    return np.hstack([found / np.linalg.norm(found, axis=0), basis @ rest[:, : qubits - wanted]])


@pytest.mark.parametrize(("classes", "qubits"), [(2, 1), (2, 6), (4, 2), (4, 3), (4, 8)])
def test_few_dimensions_give_what_all_dimensions_do(classes: int, qubits: int) -> None:
    x, y = cloud(18, rows=500, features=20, classes=classes)
    moments = moments_of(x, y, classes + 1)  # a class without rows
    shrinkages, deviation = (0.01, 0.1, 0.9), x.std(axis=0)
    found = fit_projections(moments, qubits, "lda", shrinkages, 3.0, 0)
    for one, shrinkage in zip(found, shrinkages, strict=True):
        expected = slow_lda(moments, 1 / deviation, qubits, shrinkage)
        expected *= np.sign(expected[np.abs(expected).argmax(axis=0), np.arange(qubits)])
        np.testing.assert_allclose(one.matrix * deviation[:, None], expected, atol=1e-8)
        assert one.shrinkage == shrinkage
        alone = fit_projection(moments, qubits, "lda", shrinkage, 3.0, 0)
        np.testing.assert_array_equal(alone.matrix, one.matrix)


def test_class_means_on_a_line_have_one_discriminant() -> None:
    means = np.array([[-1.0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]])
    moments = exact_moments(means, np.diag([1.0, 3, 2, 1]), np.array([20.0, 30, 40]))
    found = fit_projection(moments, 3, "lda", 0.1, 3.0, 0).matrix
    # All features have unit variance, and the others are no discriminants: any of them may follow.
    np.testing.assert_allclose(np.abs(found[0]) > 1e-6, [True, False, False])
    assert np.isfinite(found).all()
    flat = fit_projection(
        exact_moments(0 * means, np.diag([1.0, 3, 2, 1]), np.array([20.0, 30, 40])),
        *(2, "lda", 0.1, 3.0, 0),
    )
    assert np.isfinite(flat.matrix).all()


def test_random_directions_are_orthonormal_and_follow_the_seed() -> None:
    x, y = cloud(6)
    first, again, other = (
        fit_projection(moments_of(x, y, 3), 4, "random", 0.1, 3.0, s).matrix for s in (1, 1, 2)
    )
    standard = first * x.std(axis=0)[:, None]
    np.testing.assert_allclose(standard.T @ standard, np.eye(4), atol=1e-10)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("kind", ["lda", "pca", "random"])
def test_angles_are_scaled_by_the_pooled_deviation(kind: str) -> None:
    x, y = cloud(7)
    found = fit_projection(moments_of(x, y, 3), 4, kind, 0.1, 50.0, 0)  # type: ignore[arg-type]
    angles = found.apply(x)
    assert angles.dtype == np.float32
    np.testing.assert_allclose(angles.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(angles.std(axis=0), np.pi / 2 / 50, rtol=1e-4)


def test_angles_are_clipped_inside_half_pi() -> None:
    x, y = cloud(8)
    found = fit_projection(moments_of(x, y, 3), 2, "pca", 0.1, 3.0, 0)
    far = found.apply(np.vstack([x.mean(axis=0) + 1e6, x.mean(axis=0) - 1e6]))
    assert np.abs(far.astype(np.float64)).max() <= np.pi / 2
    np.testing.assert_allclose(np.abs(far), np.pi / 2, atol=1e-6)


def test_sign_makes_the_largest_entry_positive() -> None:
    x, y = cloud(9)
    for kind in ("lda", "pca", "random"):
        found = fit_projection(moments_of(x, y, 3), 4, kind, 0.1, 3.0, 0)
        standard = found.matrix * x.std(axis=0)[:, None]
        assert (standard.max(axis=0) == np.abs(standard).max(axis=0)).all()


def test_shares_that_add_up_to_one_need_no_shrinkage() -> None:
    """Frequencies have a singular covariance."""
    x = np.random.default_rng(0).dirichlet(np.ones(8), 200)
    y = (x[:, 0] > x[:, 1]).astype(int)
    found = fit_projection(moments_of(x, y, 2), 4, "lda", 0.0, 3.0, 0)
    assert np.isfinite(found.apply(x)).all()


def test_a_class_without_rows_is_left_out() -> None:
    x, y = cloud(10, classes=2)
    with_empty = fit_projection(moments_of(x, y, 5), 3, "lda", 0.1, 3.0, 0)
    without = fit_projection(moments_of(x, y, 2), 3, "lda", 0.1, 3.0, 0)
    np.testing.assert_allclose(with_empty.apply(x), without.apply(x), atol=1e-5)


def test_a_constant_feature_is_ignored() -> None:
    x, y = cloud(11)
    wide = np.hstack([x, np.full((len(x), 1), 7.3), np.zeros((len(x), 1))])
    found = fit_projection(moments_of(wide, y, 3), 4, "lda", 0.0, 3.0, 0)
    assert (found.matrix[6:] == 0).all()
    assert np.isfinite(found.apply(wide)).all()


def test_more_qubits_than_features() -> None:
    x, y = cloud(12, features=3)
    with pytest.raises(
        DataError, match=r"quantum.qubits = 4, and the 3 features .* at most 3 qubits"
    ):
        fit_projection(moments_of(x, y, 3), 4, "pca", 0.1, 3.0, 0)


def test_more_qubits_than_directions_that_vary() -> None:
    x, y = cloud(13)
    with pytest.raises(DataError, match=r"vary in 2 directions"):
        fit_projection(moments_of(x[:3], y[:3], 3), 4, "lda", 0.1, 3.0, 0)


def test_lda_of_one_class_is_refused() -> None:
    x, _ = cloud(14)
    with pytest.raises(DataError, match=r"one class only; .* features.projection = pca"):
        fit_projection(moments_of(x, np.zeros(len(x), int), 2), 2, "lda", 0.1, 3.0, 0)


def test_bytes_and_back() -> None:
    x, y = cloud(15)
    found = fit_projection(moments_of(x, y, 3), 4, "lda", 0.1, 2.5, 0)
    again = Projection.from_bytes(found.to_bytes())
    np.testing.assert_array_equal(again.apply(x), found.apply(x))
    assert again.clip == 2.5


def test_bytes_that_are_none() -> None:
    with pytest.raises(DataError, match=r"20 bytes that are no packed projection"):
        Projection.from_bytes(b"x" * 20)


def test_pickled_bytes_are_not_unpickled() -> None:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, mean=np.array([print], dtype=object))
    with pytest.raises(DataError, match=r"no packed projection"):
        Projection.from_bytes(buffer.getvalue())


def test_features_of_another_width() -> None:
    x, y = cloud(16)
    found = fit_projection(moments_of(x, y, 3), 2, "pca", 0.1, 3.0, 0)
    with pytest.raises(DataError, match=r"features of shape \(400, 5\); accepted: \(rows, 6\)"):
        found.apply(x[:, :5])


def test_sites_with_other_features() -> None:
    x, y = cloud(17)
    with pytest.raises(
        DataError, match=r"sites sent 3 classes x 5 features and 3 classes x 6 features"
    ):
        merge_moments([moments_of(x, y, 3), moments_of(x[:, :5], y, 3)])
    with pytest.raises(DataError, match=r"sites sent no moments"):
        merge_moments([])


def test_moments_from_a_broken_site() -> None:
    with pytest.raises(DataError, match=r"moments of shapes \(2,\), \(2, 3\), \(2, 2\)"):
        Moments(np.ones(2), np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(DataError, match=r"infinite or missing number"):
        Moments(np.ones(2), np.full((2, 3), np.nan), np.ones((3, 3)))


def blocks_apart(scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Eight features without any class, beside two that hold the classes in another unit."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=500)
    common = rng.normal(size=(500, 1))
    wide = rng.normal(size=(500, 8)) + common
    narrow = scale * (rng.normal(size=(500, 2)) + 0.2 * y[:, None])
    return np.hstack([wide, narrow]), y


def test_each_kind_of_features_has_the_same_part_of_the_variance() -> None:
    x, y = blocks_apart()
    moments = moments_of(x, y, 2)
    found = fit_projection(moments, 10, "pca", 0.1, 3.0, 0, (8, 2))
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    scaled = standard * np.sqrt(np.repeat([5 / 8, 5 / 2], [8, 2]))  # both blocks: variance 5
    assert scaled[:, :8].var(axis=0).sum() == pytest.approx(scaled[:, 8:].var(axis=0).sum())
    values, vectors = np.linalg.eigh(np.cov(scaled.T, bias=True))
    for place in range(10):
        assert parallel(
            found.matrix[:, place] * x.std(axis=0) / np.sqrt(np.repeat([5 / 8, 5 / 2], [8, 2])),
            vectors[:, -1 - place],
        ) == pytest.approx(1)
        assert found.scale[place] == pytest.approx(np.sqrt(values[-1 - place]))


def test_the_smaller_kind_is_not_drowned_nor_its_unit_seen() -> None:
    x, y = blocks_apart()
    moments = moments_of(x, y, 2)
    alone, apart = (fit_projection(moments, 1, "pca", 0.1, 3.0, 0, b) for b in ((), (8, 2)))
    assert np.abs(alone.matrix[8:, 0]).max() < 0.1 < np.abs(apart.matrix[8:, 0]).max()
    other, _ = blocks_apart(scale=1000.0)
    for kind in ("lda", "pca"):
        one, two = (
            fit_projection(moments_of(rows, y, 2), 2, kind, 0.1, 3.0, 0, (8, 2)).apply(rows)
            for rows in (x, other)
        )
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_one_kind_of_features_is_projected_to_the_same_digits() -> None:
    x, y = cloud(1)
    moments = moments_of(x, y, 3)
    one, other = (fit_projection(moments, 4, "lda", 0.1, 3.0, 0, b) for b in ((), (6,)))
    np.testing.assert_array_equal(one.matrix, other.matrix)


def test_the_projection_knows_its_features() -> None:
    x, y = cloud(1)
    fitted = fit_projection(moments_of(x, y, 3), 2, "lda", 0.1, 3.0, 0)
    named = replace(fitted, kinds="kmer,one-hot")
    assert Projection.from_bytes(named.to_bytes()).kinds == "kmer,one-hot"
    assert Projection.from_bytes(fitted.to_bytes()).kinds == ""
