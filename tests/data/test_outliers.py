"""Moments that are unlike those of most sites, and honest ones that must never be taken for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import Moments, moments_of, outlying_sites
from data.outliers import capped, middle

FEATURES = 12
FEW = settings(max_examples=25, deadline=None)


def site(seed: int, rows: Sequence[int], features: int = FEATURES, skewed: bool = False) -> Moments:
    """Moments of a site with so many rows of each class; classes three deviations apart."""
    rng = np.random.default_rng([7, seed])
    labels = np.repeat(np.arange(len(rows)), rows)
    x = rng.normal(size=(len(labels), features))
    if skewed:
        x = (np.exp(x / 2) - np.exp(1 / 8)) / 0.604  # unit variance, skewness 1.75
    mixed = x @ np.random.default_rng(1).normal(size=(features, features))
    means = 3 * np.random.default_rng(2).normal(size=(len(rows), features))
    return moments_of(mixed + means[labels], labels, len(rows))


def federation(sites: int = 8) -> list[Moments]:
    return [site(k, (30, 30)) for k in range(sites)]


def changed(one: Moments, sums: float = 1.0, second: float = 1.0) -> Moments:
    return Moments(one.count, one.sums * sums, one.second * second)


def shifted(one: Moments, by: float) -> Moments:
    """Moments of the same rows, all moved by so much in every feature."""
    shift, total = np.full(FEATURES, by), one.sums.sum(axis=0)
    second = one.second + np.outer(total, shift) + np.outer(shift, total)
    sums = one.sums + one.count[:, None] * shift
    return Moments(one.count, sums, second + one.rows * np.outer(shift, shift))


def test_the_geometric_median_by_hand() -> None:
    line = np.array([[0.0], [1.0], [50.0]])
    assert middle(line, np.ones(3))[0] == pytest.approx(1.0, abs=1e-3)
    square = np.array([[0, 0], [2, 0], [0, 2], [2, 2]], float)
    np.testing.assert_allclose(middle(square, np.ones(4)), [1, 1], atol=1e-9)
    assert middle(line, np.array([1.0, 1.0, 3.0]))[0] == pytest.approx(50.0, abs=1e-2)


def test_a_site_weighs_at_most_twice_the_middle_one() -> None:
    assert capped([10, 20, 30, 1e7]).tolist() == [10, 20, 30, 50]


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (lambda one: changed(one, sums=1000), "no rows have such moments"),
        (lambda one: changed(one, sums=-1, second=0.1), "no rows have such moments"),
        (lambda one: changed(one, second=1000), "spread"),
        (lambda one: changed(one, sums=1000, second=1e6), "."),
        (lambda one: shifted(one, 100.0), "class means lie"),
        (lambda one: shifted(one, 12.0), "class means lie"),
        (lambda one: Moments(one.count, one.sums[::-1], one.second), "."),
        (lambda one: Moments(one.count * 0, one.sums, one.second), "no rows have such moments"),
        (lambda one: changed(one, sums=1e300, second=1e300), "no rows have such moments"),
        (lambda one: Moments(one.count, one.sums, np.tril(one.second)), "no rows have such"),
    ],
)
def test_liars_are_found_and_nobody_else(lie: object, why: str) -> None:
    import re

    parts = federation()
    parts[2], parts[5] = lie(parts[2]), lie(parts[5])  # type: ignore[operator]
    found = outlying_sites(parts)
    assert sorted(found) == [2, 5]
    assert all(re.search(why, reason) for reason in found.values())


def test_a_class_that_only_a_liar_has_lies_where_rows_can() -> None:
    parts = [site(k, (30, 30, 0)) for k in range(6)]
    parts[2] = site(2, (30, 30, 20))
    assert outlying_sites(parts) == {}
    sums = parts[2].sums.copy()
    sums[2] += 20 * 1000.0
    far = 20 * np.outer(sums[2], sums[2]) / 400
    parts[2] = Moments(parts[2].count, sums, parts[2].second + far)
    assert list(outlying_sites(parts)) == [2]


def test_rows_that_are_all_alike() -> None:
    parts = [moments_of(np.ones((4, 3)), [0, 0, 1, 1], 2)] * 4
    assert outlying_sites(parts) == {}


def test_variance_in_one_direction_only() -> None:
    parts = federation()
    along = np.random.default_rng(3).normal(size=FEATURES)
    along /= np.linalg.norm(along)
    spike = 30 * np.trace(parts[4].second) / FEATURES * np.outer(along, along)
    parts[4] = Moments(parts[4].count, parts[4].sums, parts[4].second + spike)
    assert list(outlying_sites(parts)) == [4]


@FEW
@given(
    st.integers(0, 2**20),
    st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=3, max_size=10),
    st.sampled_from([4, FEATURES, 40]),
    st.booleans(),
)
def test_honest_sites_are_never_left_out(
    seed: int, rows: list[tuple[int, int, int]], features: int, skewed: bool
) -> None:
    """Whatever rows of whatever classes they hold, if tails are not very long: one row, none."""
    parts = [site(seed + k, held, features, skewed) for k, held in enumerate(rows)]
    assert outlying_sites(parts) == {}


@pytest.mark.parametrize("alone", [0, 3])
def test_sites_of_one_class_each_and_a_large_one(alone: int) -> None:
    parts = [site(k, (40, 0) if k % 2 else (0, 40)) for k in range(8)]
    parts[alone] = site(99, (900, 0))
    assert outlying_sites(parts) == {}


def test_the_order_of_sites_does_not_matter() -> None:
    parts = federation()
    parts[1] = shifted(parts[1], 30.0)
    assert list(outlying_sites(parts)) == [1]
    assert list(outlying_sites(parts[::-1])) == [6]


def test_of_two_sites_neither_is_outvoted() -> None:
    one, two = federation(2)
    assert outlying_sites([one, shifted(two, 100.0)]) == {}
    assert list(outlying_sites([one, changed(two, sums=1000)])) == [1]


def test_sites_that_all_differ_are_all_used() -> None:
    parts = [shifted(one, 8.0 * k) for k, one in enumerate(federation())]
    assert outlying_sites(parts) == {}
