"""Secure aggregation gives the exact sum, whoever is lost and whenever."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.secagg import SecAggError, cap_weights, check_group, make_group, mask, threshold_of
from core.secagg.messages import Answer
from tests.secagg_sites import RUN, Round, fixed_sum, group_of, site, vectors_of

MEMBERS = range(12)


def lost_at(count: int) -> st.SearchStrategy[dict[int, str]]:
    """Any `count` of the twelve, each lost before, during or after sharing."""
    clients = st.permutations(list(MEMBERS)).map(lambda order: order[:count])
    phases = st.lists(st.sampled_from(["before", "after"]), min_size=count, max_size=count)
    return st.tuples(clients, phases).map(lambda both: dict(zip(*both, strict=True)))


@settings(max_examples=25, deadline=None)
@given(lost_at(4), st.integers(0, 1000))
def test_the_sum_is_exact_with_any_third_lost_before_and_after_sharing(
    lost: dict[int, str], seed: int
) -> None:
    vectors = vectors_of(MEMBERS, seed=seed)
    before = [client for client in lost if lost[client] == "before"]
    after = [client for client in lost if lost[client] == "after"]
    found = Round(group_of(MEMBERS, 8), vectors).mask(before).answer(after).open()
    members = [client for client in MEMBERS if client not in before]
    assert found.members == tuple(members)
    assert not found.liars
    np.testing.assert_array_equal(found.vector, fixed_sum(vectors, members))


@settings(max_examples=15, deadline=None)
@given(st.permutations(list(MEMBERS)).map(lambda order: order[:4]))
def test_an_update_that_comes_too_late_is_not_in_the_sum(late: list[int]) -> None:
    """Lost during sharing: the masked vector came after the survivors were counted."""
    vectors = vectors_of(MEMBERS)
    round_ = Round(group_of(MEMBERS, 8), vectors).mask()
    for client in late:
        del round_.masked[client]
    found = round_.answer().open()
    members = [client for client in MEMBERS if client not in late]
    np.testing.assert_array_equal(found.vector, fixed_sum(vectors, members))


@pytest.mark.parametrize("phase", ["before", "after"])
def test_one_more_lost_than_a_third_and_the_sum_stays_closed(phase: str) -> None:
    group, five = group_of(MEMBERS, 8), [0, 3, 5, 8, 11]
    round_ = Round(group, vectors_of(MEMBERS))
    if phase == "before":
        round_.mask(five)
        with pytest.raises(SecAggError, match="7 of 12 members survived; at least 8 are needed"):
            round_.answer()
        with pytest.raises(SecAggError, match="7 of 12 members sent their masked updates; at"):
            round_.open()
    else:
        with pytest.raises(SecAggError, match="7 of 12 members answered; at least 8 are needed"):
            round_.mask().answer(five).open()


def test_three_members_and_numbers_of_clients_that_leave_gaps() -> None:
    clients = [2, 40, 999_999]
    vectors = vectors_of(clients, length=3)
    found = Round(group_of(clients, 3), vectors).mask().answer().open()
    np.testing.assert_array_equal(found.vector, fixed_sum(vectors, clients))


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_hundred_members_with_a_third_lost(phase: str) -> None:
    clients, lost = range(100), list(range(0, 99, 3))
    vectors = vectors_of(clients, length=70)
    round_ = Round(group_of(clients, 67), vectors)
    found = round_.mask(lost if phase == "before" else ()).answer(lost).open()
    np.testing.assert_array_equal(found.vector, fixed_sum(vectors, found.members))
    assert len(found.members) == (67 if phase == "before" else 100)
    sizes = [len(masked.to_bytes()) for masked in round_.masked.values()]
    assert max(sizes) <= 64 * 1024


def test_what_a_client_of_twelve_sends_and_receives_is_below_64_kilobytes() -> None:
    group = group_of(MEMBERS, 8)
    round_ = Round(group, vectors_of(MEMBERS, length=401)).mask([0, 4, 8, 11]).answer()
    up = len(round_.masked[1].to_bytes()) + len(round_.answers[1].to_bytes())
    down = len(group.to_bytes()) + sum(map(len, round_.masked[2].ciphertexts.values()))
    assert up + down < 12 * 1024


def test_wrong_shares_are_found_out_and_the_sum_is_right_all_the_same() -> None:
    vectors = vectors_of(MEMBERS)
    round_ = Round(group_of(MEMBERS, 8), vectors).mask([5]).answer()
    for liar in (0, 7):
        shares = {seed: (share + 1) % 2**64 for seed, share in round_.answers[liar].shares.items()}
        round_.answers[liar] = Answer(liar, round_.group.digest, shares)
    found = round_.open()
    assert found.liars == (0, 7)
    np.testing.assert_array_equal(found.vector, fixed_sum(vectors, found.members))


@pytest.mark.parametrize("liars", [(0,), (0, 1), (0, 13, 23)])
def test_a_few_liars_of_a_larger_group_are_found_wherever_they_stand(
    liars: tuple[int, ...],
) -> None:
    """Of 24 members any 16 open a seed: 735,471 subsets, and most hold the first liar's share."""
    vectors = vectors_of(range(24))
    round_ = Round(group_of(range(24), 16), vectors).mask().answer()
    for liar in liars:
        shares = {seed: share ^ 1 for seed, share in round_.answers[liar].shares.items()}
        round_.answers[liar] = Answer(liar, round_.group.digest, shares)
    found = round_.open()
    assert found.liars == liars
    np.testing.assert_array_equal(found.vector, fixed_sum(vectors, found.members))


def test_wrong_shares_among_no_more_than_are_needed_close_the_sum() -> None:
    round_ = Round(group_of(MEMBERS, 8), vectors_of(MEMBERS)).mask().answer([0, 1, 2, 3])
    shares = {**round_.answers[7].shares, (9, 9): 1}
    round_.answers[7] = Answer(7, round_.group.digest, shares)
    with pytest.raises(SecAggError) as lost:
        round_.open()
    assert lost.value.reason == (
        "a seed of client 9 cannot be restored: some of its 8 shares are wrong"
    )
    assert lost.value.clients == ()


def test_a_member_that_shared_another_seed_than_it_committed_to_is_named() -> None:
    round_ = Round(group_of(MEMBERS, 8), vectors_of(MEMBERS)).mask().answer()
    commitments = {**round_.masked[4].commitments, 4: bytes(32)}
    object.__setattr__(round_.masked[4], "commitments", commitments)
    with pytest.raises(SecAggError) as lost:
        round_.open()
    assert lost.value.reason == "client 4 shared another seed than it committed to"
    assert lost.value.clients == (4,)


@pytest.mark.parametrize(
    ("members", "share", "needed"),
    [(3, 2 / 3, 3), (4, 0.51, 3), (6, 2 / 3, 4), (12, 2 / 3, 8), (13, 2 / 3, 9), (12, 1.0, 12)],
)
def test_the_threshold_is_a_share_of_the_members_and_at_least_three(
    members: int, share: float, needed: int
) -> None:
    assert threshold_of(members, share) == needed


@settings(max_examples=50)
@given(st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=12), st.data())
def test_capped_weights_are_accepted_and_no_loss_leaves_one_alone(
    heavy: list[float], data: st.DataObject
) -> None:
    count = len(heavy)
    threshold = data.draw(st.integers(max(3, count // 2 + 1), count))
    weights = cap_weights(dict(enumerate(heavy)), threshold)
    tables = {client: site(client)[2] for client in range(count)}
    make_group(RUN, 1, threshold, tables, weights)
    assert all(weights[c] <= heavy[c] for c in weights)
    for left in itertools.islice(itertools.combinations(weights.values(), threshold), 100):
        ordered = sorted(left, reverse=True)
        assert ordered[2] >= ordered[0] / 10 * (1 - 1e-9)


def test_weights_that_would_leave_one_alone_are_refused_by_the_site_too() -> None:
    group = group_of(MEMBERS, 8)
    members = list(group.members)
    object.__setattr__(members[3], "weight", 11.0)
    with pytest.raises(SecAggError, match="a member of the group weighs 11, more than 10 times"):
        check_group(group, site(0)[1][1], 0, run=RUN, round=1, peers=None)


def test_a_second_vector_under_the_same_keys_shows_the_difference() -> None:
    """Why keys are deleted once they are used: nothing else keeps a site from it."""
    group, private = group_of(range(3), 3), site(0)[1][1]
    fixed: dict[str, Any] = {"draw": bytes, "below": lambda _: 1}
    one, _ = mask(private, 0, group, np.array([1.0]), **fixed)
    other, _ = mask(private, 0, group, np.array([3.0]), **fixed)
    assert (other.vector - one.vector) / 2**32 == 2.0
