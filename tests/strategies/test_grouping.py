"""Groups of a round: partitions by property, and a design against its closed form."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import SettingsError
from strategies.grouping import PRIOR, Group, covariance_after, make_groups

CLIENTS = st.sets(st.integers(0, 60), max_size=30).map(sorted)


def rounds_of(clients: int, size: int, rounds: int, seed: int) -> list[tuple[Group, ...]]:
    past: list[tuple[Group, ...]] = []
    for number in range(rounds):
        generator = np.random.default_rng([seed, number])
        past.append(make_groups(range(clients), size, generator, past))
    return past


def meetings(rounds: list[tuple[Group, ...]]) -> list[int]:
    pairs = (pair for groups in rounds for group in groups for pair in combinations(group, 2))
    return list(Counter(pairs).values())


@given(CLIENTS, st.sampled_from([0, 3, 4, 5]), st.integers(0, 99))
def test_each_participant_is_in_one_group_of_at_least_the_size(
    clients: list[int], size: int, seed: int
) -> None:
    groups = make_groups(clients, size, np.random.default_rng(seed))
    assert sorted(k for group in groups for k in group) == clients
    sizes = [len(group) for group in groups]
    if size and len(clients) >= 2 * size:
        assert len(groups) == len(clients) // size
        assert size <= min(sizes) <= max(sizes) <= min(sizes) + 1
    else:
        assert len(groups) == bool(clients)


def test_the_seed_decides_and_the_order_of_participants_does_not() -> None:
    one = make_groups(range(12), 3, np.random.default_rng(1))
    assert one == make_groups(range(11, -1, -1), 3, np.random.default_rng(1))
    assert one != make_groups(range(12), 3, np.random.default_rng(2))


@pytest.mark.parametrize("seed", range(5))
def test_pairs_meet_again_more_rarely_than_by_chance(seed: int) -> None:
    # Twelve clients have 66 pairs, and eight rounds of threes 96 meetings: 36 pairs once, 30 twice.
    least = 36 * 1 + 30 * 4
    designed = sum(n * n for n in meetings(rounds_of(12, 3, 8, seed)))
    shuffled = [make_groups(range(12), 3, np.random.default_rng([seed, n])) for n in range(8)]
    drawn = sum(n * n for n in meetings(shuffled))
    assert least <= designed <= least + 16 < drawn


def test_covariance_of_one_group_is_that_of_its_closed_form() -> None:
    # (p I + 1 1')^-1 = (I - 1 1' / (p + n)) / p (Sherman and Morrison); others stay at 1 / p.
    found = covariance_after([[(0, 1, 2)]], [0, 1, 2, 7])
    wanted = np.eye(4) / PRIOR
    wanted[:3, :3] -= 1 / (PRIOR * (PRIOR + 3))
    np.testing.assert_allclose(found, wanted)


def test_clients_that_are_gone_still_tell_the_others_apart() -> None:
    # 0 with 1 and 2, then 1 and 2 with others: what 0 gave is known better than without those.
    past = [[(0, 1, 2)], [(1, 2, 3), (4, 5, 6)]]
    assert covariance_after(past, [0])[0, 0] < covariance_after(past[:1], [0])[0, 0]


@pytest.mark.parametrize("size", [1, 2, -3])
def test_groups_of_two_are_refused(size: int) -> None:
    with pytest.raises(SettingsError, match=f"privacy.group_size = {size}.*at least 3"):
        make_groups(range(12), size, np.random.default_rng(0))
