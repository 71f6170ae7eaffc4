"""The parts of secure aggregation: sharing, fixed point, masks, the graph, messages' bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.secagg import (
    FRACTION_BITS,
    RANGE,
    Group,
    Held,
    KeyTable,
    Masked,
    RoundPrivate,
    SecAggError,
    graph,
    masks,
    shamir,
)
from core.secagg.fixed_point import decode, encode
from core.secagg.messages import Answer, ciphertext_bytes, revealed
from core.secagg.wire import MOST_MEMBERS, number_bytes
from tests.secagg_sites import Round, drawing, group_of, site, vectors_of


def test_shares_are_the_values_of_the_polynomial() -> None:
    """1234 + 166 x + 94 x^2, a textbook's example."""
    drawn = iter([94, 166])
    shares = shamir.split(1234, 3, range(1, 7), lambda _: next(drawn))
    assert shares == [1494, 1942, 2578, 3402, 4414, 5614]
    assert shamir.combine({2: 1942, 4: 3402, 5: 4414}) == 1234


def test_the_field_is_a_prime_field_with_room_for_every_secret() -> None:
    assert shamir.PRIME == 0x3FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFB  # Poly1305's prime, RFC 8439
    assert all(pow(base, shamir.PRIME - 1, shamir.PRIME) == 1 for base in (2, 3, 5, 7, 11))
    assert 2 ** (8 * shamir.SECRET_BYTES) <= shamir.PRIME < 2 ** (8 * shamir.SHARE_BYTES)


@settings(max_examples=30)
@given(st.integers(0, 2**128 - 1), st.integers(1, 6), st.integers(0, 3), st.integers(0, 99))
def test_any_threshold_shares_restore_the_secret(
    secret: int, threshold: int, more: int, seed: int
) -> None:
    points = range(1, threshold + more + 1)
    shares = shamir.split(secret, threshold, points, drawing(seed)["below"])
    for chosen in itertools.combinations(points, threshold):
        assert shamir.combine({p: shares[p - 1] for p in chosen}) == secret


@settings(max_examples=30)
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(2, 6))
def test_one_share_fewer_goes_with_every_secret(secret: int, other: int, threshold: int) -> None:
    shares = shamir.split(secret, threshold, range(1, threshold))
    points = {0: other, **dict(enumerate(shares, 1))}  # as many as a polynomial's coefficients
    more = {place: shamir.value_at(place, points) for place in range(threshold, 2 * threshold)}
    known = {1: shares[0], **dict(itertools.islice(more.items(), threshold - 1))}
    assert shamir.combine(known) == other


@settings(max_examples=50)
@given(st.lists(st.floats(-RANGE, RANGE), min_size=1, max_size=20))
def test_fixed_point_is_off_by_half_its_precision_at_most(numbers: list[float]) -> None:
    vector = np.array(numbers)
    assert np.abs(decode(encode(vector)) - vector).max() <= 2.0 ** -(FRACTION_BITS + 1)


def test_as_many_largest_numbers_as_a_group_has_members_fit_into_the_ring() -> None:
    for sign in (1.0, -1.0):
        total = np.zeros(1, np.uint64)
        for _ in range(MOST_MEMBERS):
            total = total + encode(np.array([sign * RANGE]))
        assert decode(total) == sign * RANGE * MOST_MEMBERS


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (np.nan, "the update holds a number that is not finite"),
        (-np.inf, "the update holds a number that is not finite"),
        (
            -1.1 * RANGE,
            "the weighted update holds a number of 1.153e+06; accepted: at most 1048576",
        ),
    ],
)
def test_numbers_without_a_place_in_the_ring_are_refused(number: float, reason: str) -> None:
    with pytest.raises(SecAggError) as refused:
        encode(np.array([1.0, number]))
    assert refused.value.reason == reason


def test_two_members_agree_on_one_seed_and_each_group_on_another() -> None:
    one, other = site(1)[1][1], site(2)[1][1]
    digests = bytes(32), bytes(31) + b"1"
    seeds = {
        digest: (
            masks.pair_seed(one.mask, other.public[0], digest, 1, 2),
            masks.pair_seed(other.mask, one.public[0], digest, 2, 1),
        )
        for digest in digests
    }
    assert all(mine == theirs for mine, theirs in seeds.values())
    assert seeds[digests[0]] != seeds[digests[1]]


def test_a_key_of_low_order_is_refused() -> None:
    with pytest.raises(SecAggError, match="a public key is of low order"):
        masks.agree(site(1)[1][1].mask, bytes(32), b"", 32)


@pytest.mark.parametrize("count", [3, 12, 56, 57, 100, 200])
def test_the_graph_is_symmetric_regular_and_complete_up_to_its_limit(count: int) -> None:
    threshold = -(-2 * count // 3)
    clients = [7 * place for place in range(count)]
    found = graph.neighbours(b"digest", clients, threshold)
    degree = graph.degree(count, threshold)
    assert all(len(found[c]) == degree and c not in found[c] for c in clients)
    assert all(c in found[other] for c in clients for other in found[c])
    assert (degree == count - 1) == (count <= graph.COMPLETE_UP_TO)
    if degree < count - 1:
        assert found != graph.neighbours(b"another", clients, threshold)


def test_a_large_groups_degree_leaves_everybody_a_majority_of_holders() -> None:
    """The tail by drawing instead of counting: a third of 100 are lost, at random."""
    rng, threshold = np.random.default_rng(0), 67
    found = graph.neighbours(b"digest", range(100), threshold)
    needed = graph.shares_needed(100, threshold)
    assert needed == (graph.degree(100, threshold) + 1) // 2 + 1
    failed = 0
    for _ in range(2000):
        alive = set(rng.choice(100, threshold, replace=False).tolist())
        failed += any(len(alive & {c, *found[c]}) < needed for c in alive)
    assert failed <= 2000 * graph.MOST_UNOPENED + 5


def test_a_member_gives_no_share_of_a_lost_ones_seed_nor_of_two_survivors() -> None:
    everybody = graph.neighbours(b"", range(6), 4)
    given_away = revealed(everybody, 2, {0, 1, 2, 3})
    assert given_away == [(u, v) for u in range(4) for v in sorted({u, 4, 5})]


def messages() -> list[tuple[bytes, object]]:
    """Bytes of each kind of message, and what reads them."""
    group = group_of(range(4), 3)
    done = Round(group, vectors_of(range(4))).mask().answer()
    made = done.answers[0]
    return [
        (group.to_bytes(), Group.from_bytes),
        (dataclasses.replace(site(0)[2], knows_peers=True).to_bytes(), KeyTable.from_bytes),
        (done.masked[0].to_bytes(), Masked.from_bytes),
        (done.held[0].to_bytes(), Held.from_bytes),
        (made.to_bytes(), lambda data: Answer.from_bytes(data, list(made.shares))),
        (site(0)[1][1].to_bytes(), RoundPrivate.from_bytes),
    ]


KINDS = ["group", "table", "masked", "held", "answer", "private"]


@pytest.mark.parametrize("kind", range(6), ids=KINDS)
def test_bytes_are_read_back_and_nothing_more_or_less(kind: int) -> None:
    data, read = messages()[kind]
    assert read(data).to_bytes() == data  # type: ignore[operator]
    with pytest.raises(SecAggError, match="has 1 bytes too many"):
        read(data + b"x")  # type: ignore[operator]
    for length in (0, 1, len(data) // 2, len(data) - 1):
        with pytest.raises(SecAggError):
            read(data[:length])  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(range(6)), st.data())
def test_changed_bytes_are_read_or_refused_and_never_fail_otherwise(
    kind: int, data: st.DataObject
) -> None:
    original, read = messages()[kind]
    place = data.draw(st.integers(0, min(len(original), 200) - 1))
    part = data.draw(st.binary(min_size=1, max_size=8))
    changed = original[:place] + part + original[place + len(part) :]
    found = None
    with contextlib.suppress(SecAggError):  # any other error fails the test
        found = read(changed)  # type: ignore[operator]
    assert found is None or found.to_bytes() == changed


def test_neighbours_stand_in_ascending_order_each_once_and_without_oneself() -> None:
    """One order, one meaning: two different byte strings are two different messages."""
    data = messages()[2][0]
    place, one = 76, ciphertext_bytes(3) + 4 + 32  # of the first neighbour, and to the next
    assert [data[place + k * one + 3] for k in range(3)] == [1, 2, 3]

    def with_first(number: int) -> bytes:
        return data[:place] + number_bytes(number) + data[place + 4 :]

    with pytest.raises(SecAggError, match="a masked update has 2 after 2: not in ascending order"):
        Masked.from_bytes(with_first(2))
    with pytest.raises(SecAggError, match="has 2 after 9: not in ascending order"):
        Masked.from_bytes(with_first(9))
    with pytest.raises(SecAggError, match="client 0 is no neighbour of its own"):
        Masked.from_bytes(with_first(0))


def test_a_count_that_would_fill_the_memory_is_refused_before_it_does() -> None:
    data = messages()[2][0]
    many = data[:36] + (2**32 - 1).to_bytes(4, "big") + data[40:]
    with pytest.raises(SecAggError, match="a masked update holds 4294967295; at most 16777216"):
        Masked.from_bytes(many)
