"""Drawing, splitting and sharing out rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import DataError
from data.partition import (
    allocate,
    column_parts,
    dirichlet_parts,
    draw_within,
    iid_parts,
    quantity_parts,
    stratified_draw,
    stratified_split,
)

counts_lists = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(lambda c: sum(c) > 1)
seeds = st.integers(0, 10_000)


def labels_of(counts: list[int]) -> np.ndarray:
    """Labels class by class: the worst order there is."""
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


@given(counts_lists, st.data())
def test_allocate_shares_exactly_within_limits(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(counts)))
    array = np.array(counts)
    taken = allocate(array, total)
    assert taken.sum() == total
    assert ((taken >= 0) & (taken <= array)).all()
    if total >= (array > 0).sum():
        assert (taken[array > 0] > 0).all()


def test_allocate_by_largest_remainders() -> None:
    # 10 of 100: exact shares 5.5, 3.3, 1.2, and the largest remainder wins.
    assert allocate(np.array([55, 33, 12]), 10).tolist() == [6, 3, 1]
    # A class that would round to nothing gets one row.
    assert allocate(np.array([97, 2, 1]), 10).tolist() == [8, 1, 1]
    # One row of each class stays behind.
    assert allocate(np.array([5, 2, 1]), 5, spare=1).tolist() == [4, 1, 0]


@given(counts_lists, seeds, st.data())
def test_draw_takes_each_row_once(counts: list[int], seed: int, data: st.DataObject) -> None:
    labels = labels_of(counts)
    rows = data.draw(st.integers(0, len(labels)))
    drawn, others = stratified_draw(labels, rows, np.random.default_rng(seed))
    assert len(drawn) == rows
    assert sorted([*drawn, *others]) == list(range(len(labels)))


@given(counts_lists, seeds, st.floats(0.01, 0.99))
def test_split_has_every_class_on_both_sides(counts: list[int], seed: int, share: float) -> None:
    labels = labels_of(counts)
    kept, held = stratified_split(labels, share, np.random.default_rng(seed))
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert min(len(kept), len(held)) > 0
    for number, rows in enumerate(counts):
        if rows > 1:
            assert number in labels[kept]
            assert number in labels[held]


def test_split_keeps_the_proportions() -> None:
    labels = labels_of([700, 200, 100])
    kept, held = stratified_split(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[held]).tolist() == [140, 40, 20]
    assert np.bincount(labels[kept]).tolist() == [560, 160, 80]


@settings(deadline=None)
@given(
    counts_lists,
    seeds,
    st.integers(1, 5),
    st.sampled_from(["iid", "dirichlet", "quantity", "column"]),
)
def test_every_row_exactly_once(counts: list[int], seed: int, clients: int, how: str) -> None:
    labels, rng = labels_of(counts), np.random.default_rng(seed)
    try:
        if how == "iid":
            parts = iid_parts(labels, clients, rng)
        elif how == "dirichlet":
            parts = dirichlet_parts(labels, clients, 0.5, rng)
        elif how == "quantity":
            parts = quantity_parts(labels, clients, 0.5, rng)
        else:
            parts = column_parts([str(i % clients) for i in range(len(labels))], clients, rng)
    except DataError:
        return
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    if how != "iid":
        assert min(len(part) for part in parts) >= 2


@given(counts_lists, seeds, st.integers(1, 5))
def test_iid_parts_are_equal_within_a_row(counts: list[int], seed: int, clients: int) -> None:
    labels = labels_of(counts)
    parts = iid_parts(labels, clients, np.random.default_rng(seed))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for number in range(len(counts)):
        of_class = [int((labels[part] == number).sum()) for part in parts]
        assert max(of_class) - min(of_class) <= 1


def test_same_generator_same_parts_and_another_seed_others() -> None:
    labels = labels_of([50, 50])
    first, again, other = (
        dirichlet_parts(labels, 3, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("how", ["iid", "dirichlet", "quantity"])
def test_labels_are_shuffled(how: str) -> None:
    """Published defect 7: rows class by class, so that the first ones were of one class."""
    labels, rng = labels_of([300, 300]), np.random.default_rng(0)
    parts = {
        "iid": lambda: iid_parts(labels, 3, rng),
        "dirichlet": lambda: dirichlet_parts(labels, 3, 100.0, rng),
        "quantity": lambda: quantity_parts(labels, 3, 100.0, rng),
    }[how]()
    for part in parts:
        head = labels[part][: len(part) // 2]
        assert 0.35 < head.mean() < 0.65


def test_dirichlet_skews_labels_more_with_smaller_alpha() -> None:
    labels = labels_of([2000, 2000])

    def skew(alpha: float) -> float:
        parts = dirichlet_parts(labels, 4, alpha, np.random.default_rng(3))
        return float(np.mean([abs(labels[part].mean() - 0.5) for part in parts]))

    assert skew(1000.0) < 0.03 < 0.2 < skew(0.2)


def test_dirichlet_counts_are_those_of_flwr_datasets() -> None:
    """Second method: the same draws give the same rows per class and client."""
    datasets = pytest.importorskip("datasets")
    partitioner = pytest.importorskip("flwr_datasets.partitioner")
    labels = labels_of([120, 90, 60])
    theirs = partitioner.DirichletPartitioner(
        4, "label", 0.8, min_partition_size=2, self_balancing=False, seed=11
    )
    theirs.dataset = datasets.Dataset.from_dict({"label": labels.tolist()})
    ours = dirichlet_parts(labels, 4, 0.8, np.random.default_rng(11))
    for client, part in enumerate(ours):
        their_labels = np.array(theirs.load_partition(client)["label"])
        expected = np.bincount(their_labels, minlength=3)
        assert np.bincount(labels[part], minlength=3).tolist() == expected.tolist()


def test_quantity_skews_sizes_and_not_labels() -> None:
    labels = labels_of([3000, 3000])
    parts = quantity_parts(labels, 4, 0.5, np.random.default_rng(1))
    sizes = [len(part) for part in parts]
    assert max(sizes) > 2 * min(sizes)
    assert all(abs(labels[part].mean() - 0.5) < 0.1 for part in parts if len(part) > 200)


def test_dirichlet_gives_up_with_a_clear_error() -> None:
    with pytest.raises(
        DataError, match=r"data.alpha = 0.001 left one of 8 clients with fewer than 2 rows"
    ):
        dirichlet_parts(labels_of([50, 50]), 8, 0.001, np.random.default_rng(0))


def test_quantity_gives_up_with_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"data.partition = quantity .* raise data.alpha"):
        quantity_parts(labels_of([50, 50]), 20, 0.01, np.random.default_rng(0))


def test_column_values_in_sorted_order() -> None:
    groups = ["b", "a", "b", "a", "c", "c"]
    parts = column_parts(groups, 3, np.random.default_rng(0))
    assert [sorted(part.tolist()) for part in parts] == [[1, 3], [0, 2], [4, 5]]


def test_column_needs_one_client_a_value() -> None:
    with pytest.raises(
        DataError, match=r"2 different values in the partition column for 3 clients"
    ):
        column_parts(["a", "b", "a", "b"], 3, np.random.default_rng(0))


def test_column_needs_rows_at_every_site() -> None:
    with pytest.raises(DataError, match=r"value 2 of the partition column \(sorted\) has 1 rows"):
        column_parts(["a", "b", "a"], 2, np.random.default_rng(0))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(4, 40), min_size=1, max_size=5),
    st.integers(0, 10),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 5),
)
def test_a_draw_within_groups_empties_none(
    sizes: list[int], more: int, least: int, spare: int, seed: int
) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labels = np.arange(len(groups)) % 3
    rows = min(least * len(sizes) + more, len(groups) - spare * len(sizes))
    if rows < least * len(sizes):
        return
    rng = np.random.default_rng(seed)
    drawn, others = draw_within(labels, groups, rows, rng, least, spare)
    assert sorted([*drawn.tolist(), *others.tolist()]) == list(range(len(groups)))
    assert len(drawn) == rows
    for number, size in enumerate(sizes):
        taken = sum(groups[row] == f"g{number}" for row in drawn)
        assert taken >= least
        assert least or taken <= size - spare
        # In proportion: what is left after the least rows, within one row of the exact share.
        if not spare and not least:
            assert abs(taken - rows * size / len(groups)) <= len(sizes)


def test_a_draw_without_groups_is_the_stratified_one() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    one = draw_within(labels, (), 8, np.random.default_rng(3))
    other = stratified_draw(labels, 8, np.random.default_rng(3))
    assert [x.tolist() for x in one] == [x.tolist() for x in other]
