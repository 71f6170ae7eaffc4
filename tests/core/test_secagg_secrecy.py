"""What a server with up to threshold - 1 members sees determines no single update."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core.secagg import (
    Answer,
    Group,
    Held,
    Masked,
    RoundPrivate,
    answer,
    ciphertexts_for,
    mask,
    shamir,
)
from core.secagg.fixed_point import encode
from core.secagg.masks import mask_of, pair_seed
from core.secagg.messages import Seed, revealed
from core.secagg.site import _decrypted
from tests.secagg_sites import drawing, drawn_group, vectors_of

MEMBERS, THRESHOLD = 9, 6
LATE = 8  # its masked vector is there, and it is not in the sum
COLLUDERS = (0, 1, 2, 3, 4)  # threshold - 1
Vectors = Mapping[int, npt.NDArray[np.float64]]


@dataclass
class View:
    """A round as server and colluding sites see it together, and what only the others know."""

    group: Group
    privates: dict[int, RoundPrivate]
    masked: dict[int, Masked]
    answers: dict[int, Answer]
    shares_of_colluders: dict[Seed, dict[int, int]]

    def known_shares(self, seed: Seed) -> dict[int, int]:
        """Shares of a seed, by point, that the adversary has: answered, or the colluders' own."""
        answered = {c + 1: a.shares[seed] for c, a in self.answers.items() if seed in a.shares}
        return answered | self.shares_of_colluders.get(seed, {})

    def honest_pairs(self) -> list[tuple[int, int]]:
        honest = [client for client in range(MEMBERS) if client not in COLLUDERS]
        return list(itertools.combinations(honest, 2))

    def pair_mask(self, one: int, other: int, length: int) -> npt.NDArray[np.uint64]:
        public = self.group.member(other).keys.mask
        seed = pair_seed(self.privates[one].mask, public, self.group.digest, one, other)
        return mask_of(seed, length)


def view_of(vectors: Vectors) -> View:
    """Run a round in which one update comes too late, and record all that the adversary gets."""
    group, privates = drawn_group(MEMBERS, THRESHOLD, seed=3)
    made = {c: mask(privates[c], c, group, vectors[c], **drawing(c)) for c in range(MEMBERS)}
    masked = {client: message for client, (message, _) in made.items()}
    survivors = {client: masked[client] for client in masked if client != LATE}
    answers = {
        c: answer(made[c][1], sorted(survivors), ciphertexts_for(c, group, survivors))
        for c in survivors
    }
    seen: dict[Seed, dict[int, int]] = {}
    for colluder in COLLUDERS:
        for seed, share in shares_of(made[colluder][1], masked).items():
            seen.setdefault(seed, {})[colluder + 1] = share
    return View(group, privates, masked, answers, seen)


def shares_of(held: Held, masked: Mapping[int, Masked]) -> dict[Seed, int]:
    """Return all shares that a member has: its own, and what was encrypted for it."""
    found = {(held.client, other): share for other, share in held.shares.items()}
    for dealer in held.channels:
        data = masked[dealer].ciphertexts[held.client]
        others = (dealer, *(c for c in range(MEMBERS) if c != dealer))
        shares = _decrypted(held, dealer, data, MEMBERS - 1)
        found.update({(dealer, v): s for v, s in zip(others, shares, strict=True)})
    return found


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return vectors_of(range(MEMBERS), length=6)


@pytest.fixture(scope="module")
def view(vectors: Vectors) -> View:
    return view_of(vectors)


def test_seeds_between_honest_survivors_and_of_the_late_stay_below_the_threshold(
    view: View,
) -> None:
    hidden = [(LATE, LATE)]
    hidden += [pair for pair in view.honest_pairs() if LATE not in pair]
    hidden += [(v, u) for u, v in view.honest_pairs() if LATE not in (u, v)]
    for seed in hidden:
        assert len(view.known_shares(seed)) == THRESHOLD - 1  # the colluders' own, no more
    for survivor in set(range(MEMBERS)) - {LATE}:
        assert len(view.known_shares((survivor, survivor))) >= THRESHOLD


def test_the_shares_that_are_seen_go_with_every_other_seed(view: View) -> None:
    for seed in [(5, 6), (6, 5), (LATE, LATE)]:
        for other in (0, 1, 2**128 - 1):
            points = {0: other, **view.known_shares(seed)}  # a polynomial of degree t - 1
            rest = [p for p in range(1, MEMBERS + 1) if p not in points]
            others = {p: shamir.value_at(p, points) for p in rest}
            chosen = dict(list({**view.known_shares(seed), **others}.items())[-THRESHOLD:])
            assert shamir.combine(chosen) == other


def explained(
    view: View, vectors: Vectors, masks: Mapping[Seed, npt.NDArray[np.uint64]]
) -> dict[int, npt.NDArray[np.uint64]]:
    """Make masked vectors from updates and masks by the definition; `masks` replaces some."""
    found = {}
    for client in range(MEMBERS):
        total = encode(vectors[client])
        own = drawing(client)["draw"](16)  # the first that `mask` draws
        total = total + masks.get((client, client), mask_of(own, len(total)))
        for other in set(range(MEMBERS)) - {client}:
            pair = (min(client, other), max(client, other))
            part = masks.get(pair, view.pair_mask(client, other, len(total)))
            total = total + part if client < other else total - part
        found[client] = total
    return found


def test_the_masked_vectors_are_those_of_the_definition(view: View, vectors: Vectors) -> None:
    for client, total in explained(view, vectors, {}).items():
        np.testing.assert_array_equal(total, view.masked[client].vector)


def test_other_updates_with_the_same_sum_explain_all_that_is_seen(
    view: View, vectors: Vectors
) -> None:
    """The late one's update may be anything; of 5, 6 and 7 only the sum is fixed.

    The masks that explain it replace those of seeds that the adversary does not know; everything
    else in its view (shares, commitments, ciphertexts) was made without the updates.
    """
    rng = np.random.default_rng(5)
    change = {c: np.round(rng.normal(size=6) * 2**10) / 2**5 for c in (5, 6, LATE)}
    other = {**vectors, 5: vectors[5] + change[5], 6: vectors[6] + change[6]}
    other = {**other, 7: vectors[7] - change[5] - change[6], LATE: vectors[LATE] + change[LATE]}
    moved = {c: encode(other[c]) - encode(vectors[c]) for c in (5, 6, 7, LATE)}
    assert not np.any(moved[5] + moved[6] + moved[7])
    late_seed = drawing(LATE)["draw"](16)
    masks = {
        (5, 7): view.pair_mask(5, 7, 6) - moved[5],
        (6, 7): view.pair_mask(6, 7, 6) - moved[6],
        (LATE, LATE): mask_of(late_seed, 6) - moved[LATE],
    }
    for client, total in explained(view, other, masks).items():
        np.testing.assert_array_equal(total, view.masked[client].vector)


def test_what_is_not_the_masked_vector_does_not_depend_on_the_update(vectors: Vectors) -> None:
    other = {client: vector + 1.0 for client, vector in vectors.items()}
    one, two = view_of(vectors), view_of(other)
    for client in range(MEMBERS):
        assert one.masked[client].ciphertexts == two.masked[client].ciphertexts
        assert one.masked[client].commitments == two.masked[client].commitments
        if client != LATE:
            assert one.answers[client] == two.answers[client]


def test_masked_vectors_are_uniform_and_uncorrelated_with_the_update() -> None:
    length = 50_000
    vector = np.linspace(-100.0, 100.0, length)
    group, privates = drawn_group(3, 3, seed=11)
    masked = [mask(privates[c], c, group, vector, **drawing(c))[0].vector for c in range(3)]
    for one in masked:
        counts = np.bincount(one.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3
        for part in (one / 2.0**64, (one % np.uint64(2**40)) / 2.0**40):
            assert abs(np.corrcoef(part, vector)[0, 1]) < 4 / np.sqrt(length)
    for one, two in itertools.combinations(masked, 2):
        correlation = np.corrcoef(one / 2.0**64, two / 2.0**64)[0, 1]
        assert abs(correlation) < 4 / np.sqrt(length)


def opened_by(
    lists: Mapping[int, Collection[int]], members: int, threshold: int
) -> tuple[set[int], set[Seed]]:
    """Return whose own seed and which pairwise seeds a server gets from different lists.

    `lists` has what it says to each honest member; the others collude and give all their shares.
    """
    everybody = {c: tuple(v for v in range(members) if v != c) for c in range(members)}
    colluding = members - len(lists)
    counts: dict[Seed, int] = {}
    for client, survivors in lists.items():
        for seed in revealed(everybody, client, survivors):
            counts[seed] = counts.get(seed, 0) + 1
    got = {seed for seed, count in counts.items() if count + colluding >= threshold}
    return {u for u, v in got if u == v}, {(min(u, v), max(u, v)) for u, v in got if u != v}


def alone(lists: Mapping[int, Collection[int]], members: int, threshold: int) -> set[int]:
    """Return the honest members all of whose masks towards honest ones the server can take off."""
    own, pairs = opened_by(lists, members, threshold)
    return {
        u for u in own & set(lists) if all((min(u, v), max(u, v)) in pairs for v in lists if v != u)
    }


@st.composite
def different_lists(draw: st.DrawFn) -> tuple[dict[int, Collection[int]], int, int]:
    """Members, a threshold with 2 t > m + colluders, and what each honest one is shown."""
    members = draw(st.integers(4, 12))
    threshold = draw(st.integers(max(3, members // 2 + 1), members))
    colluding = draw(st.integers(0, max(0, min(2 * threshold - members - 1, members - 2))))
    honest = range(members - colluding)
    kinds = draw(st.lists(_survivors(members, threshold), min_size=1, max_size=4))
    return {c: draw(st.sampled_from(kinds)) | {c} for c in honest}, members, threshold


def _survivors(members: int, threshold: int) -> st.SearchStrategy[frozenset[int]]:
    sizes = st.integers(threshold, members)
    orders = st.permutations(list(range(members)))
    return st.tuples(orders, sizes).map(lambda both: frozenset(both[0][: both[1]]))


@settings(max_examples=400, deadline=None)
@given(different_lists())
def test_different_lists_of_survivors_open_nobody_below_the_bound(
    case: tuple[dict[int, Collection[int]], int, int],
) -> None:
    lists, members, threshold = case
    assert not alone(lists, members, threshold)


@pytest.mark.parametrize(("threshold", "found"), [(7, {0}), (8, set())])
def test_the_bound_on_colluders_is_tight(threshold: int, found: Iterable[int]) -> None:
    """Two halves of ten honest members of twelve, two colluders: 2 t > m + 2 holds from t = 8."""
    one = [*range(5), 10, 11]  # members 0 to 4 see these survive, and the other half lost
    two = [0, *range(5, 10), 10, 11]  # members 5 to 9 see 0 and their own half survive
    lists: dict[int, Iterable[int]] = dict.fromkeys(range(5), one) | dict.fromkeys(
        range(5, 10), two
    )
    assert alone({c: set(v) for c, v in lists.items()}, 12, threshold) == set(found)
