"""When clients may be left out: each test in closed form, and properties of all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.agents import frugal as frugal_agent
from strategies.agents.frugal import FrugalAgent
from strategies.credit import standing, standing_variance, weights_squared
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.client_value import standing_error
from strategies.decisions.guard import guard
from strategies.decisions.harmless import (
    COVERAGE,
    CREDIT,
    EVERYBODY,
    TREND,
    class_shares,
    counted,
    counted_rows,
    distrusted,
    falls_behind,
    longest_rest,
    variation,
    why_not,
)
from tests.strategies.agents.observations import seen, settings_of, view

GOOD = {"participants": (4,), "losses": (0.5,), "accuracies": (0.8,), "round": 2}


SAFE = settings_of("agent.kind=random", "agent.leave_out=when-harmless", "stop.patience=0")


def clients(*rows: tuple[int, ...], **changes: object) -> list[ClientView]:
    return [
        view(k, rows=sum(each), class_rows=each, weight=sum(each), **changes)
        for k, each in enumerate(rows)
    ]


ALIKE = clients(*[(5, 5)] * 4)


def harmful(one: ClientView, standing: float = -1.0) -> ClientView:
    known = {"standing": standing, "standing_variance": 0.001, "chosen": 5, "rounds_since": 30}
    return one.model_copy(update=known)


def test_alike_clients_may_rest_and_all_may_train() -> None:
    assert why_not((0, 1), seen(ALIKE, **GOOD)) == ("", "")
    assert why_not(range(4), seen(ALIKE, round=1)) == ("", "")


def test_a_round_that_is_mixed_otherwise_brings_everybody_in() -> None:
    shown = seen(clients((10, 0), (10, 0), (5, 5), (5, 5)), **GOOD)  # a quarter is of class 1
    assert not why_not((0, 1, 2), shown)[0]  # 5 of 30: 0.08 off
    assert not why_not((0, 2, 3), shown)[0]  # 10 of 30: 0.08 off
    test, why = why_not((0, 1), shown)
    assert (test, why) == (
        COVERAGE,
        "the participants' classes are 0.25 from those of all (at most 0.2)",
    )
    test, why = why_not((2, 3), shown)
    assert test == COVERAGE


def test_the_mix_is_that_of_those_that_are_trusted() -> None:
    sites = clients((20, 0), (10, 0), (10, 20), (0, 20), (0, 10))
    five = {**GOOD, "participants": (5,)}
    assert why_not((0, 1), seen(sites, **five))[0] == COVERAGE
    assert variation((0.5, 0.5), (1.0, 0.0)) == 0.5
    bad = [*sites[:4], harmful(sites[4])]  # of 40 of class 0 and 40 of class 1
    assert not why_not((0, 1, 2), seen(bad, **five))[0]  # 40 of 60: 0.17 off
    assert why_not((0, 1, 2), seen(sites, **five))[0] == COVERAGE  # 0.22 off


def test_shares_count_as_the_average_does() -> None:
    one, other = clients((90, 10), (5, 5))
    assert class_shares([one, other]) == pytest.approx([95 / 110, 15 / 110])
    cut = one.model_copy(update={"weight": 30})
    assert class_shares([cut, other]) == pytest.approx([32 / 40, 8 / 40])
    assert class_shares([view(0), view(1)]) == []


@pytest.mark.parametrize(
    ("chosen", "of", "most"), [(5, 10, 3), (1, 10, 19), (3, 10, 6), (9, 10, 2)]
)
def test_rest_is_at_most_that_of_two_fair_rotations(chosen: int, of: int, most: int) -> None:
    assert longest_rest(chosen, of) == most


def test_only_who_is_shown_to_do_harm_rests_without_end() -> None:
    rested = [*ALIKE[:3], ALIKE[3].model_copy(update={"rounds_since": 3, "standing": 0.0})]
    test, why = why_not((0, 1), seen(rested, **GOOD))
    assert (test, why) == (CREDIT, "client 3 is not shown to do harm and has rested for 3 rounds")
    assert not why_not((0, 1), seen([*ALIKE[:3], harmful(ALIKE[3])], **GOOD))[0]
    unsure = harmful(ALIKE[3]).model_copy(update={"standing_variance": 9.0})
    assert why_not((0, 1), seen([*ALIKE[:3], unsure], **GOOD))[0] == CREDIT


def test_most_of_a_class_cannot_do_harm() -> None:
    sites = clients((5, 0), (5, 0), (0, 5), (0, 4))
    assert [one.client for one in distrusted([harmful(one) for one in sites[:2]] + sites[2:])] == []
    sites = clients((4, 2), (4, 2), (9, 9), (8, 5))
    bad = [harmful(sites[0], -0.5), harmful(sites[1], -0.9), *sites[2:]]
    assert [one.client for one in distrusted(bad)] == [1]  # both would hold 8 of 25
    assert distrusted([harmful(one) for one in clients((5, 5))]) == []


def trend(participants: tuple[int, ...], losses: tuple[float, ...]) -> str:
    return falls_behind(seen(ALIKE, participants=participants, losses=losses))


def test_the_last_rounds_must_be_no_worse_than_the_last_of_everybody() -> None:
    assert trend((), ()) == "there was no round of everybody yet"
    assert trend((2,), (0.5,)) == "there was no round of everybody yet"
    assert trend((4,), (0.5,)) == ""
    assert trend((4, 2), (0.5, 0.9)) == ""  # one round may jump
    assert trend((4, 2, 2), (0.5, 0.6, 0.39)) == ""
    worse = "validation loss 0.5050 after 0.5000 when everybody had trained"
    assert trend((4, 2, 2), (0.5, 0.6, 0.41)) == worse
    assert trend((4, 2, 2, 4), (0.5, 0.6, 0.41, 0.7)) == ""  # measured from the last one


def test_everybody_trains_again_after_some_rounds() -> None:
    falling = tuple(1 - k / 20 for k in range(11))
    assert trend((4, *[2] * 9), falling[:10]) == ""
    assert trend((4, *[2] * 10), falling) == "everybody trained 10 rounds ago"
    assert trend((4, 2, 2, 4, *[2] * 7), falling) == ""


def test_the_guard_lets_everybody_train_plain_steps_and_says_why() -> None:
    shown = seen(clients((10, 0), (10, 0), (5, 5), (5, 10)), plain_steps=7, **GOOD)
    wish = Decision.to_train({0: 20, 1: 20}, "cheap")
    freely = settings_of("agent.leave_out=freely")
    assert guard(wish, shown, freely) == (wish, [])
    decision, notes = guard(wish, shown, SAFE)
    assert decision.steps == dict.fromkeys(range(4), 7)
    assert decision.reason == "cheap"
    assert len(notes) == 1
    assert notes[0].startswith(f"{EVERYBODY}{COVERAGE}: ")


ROWS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=8)


@given(ROWS, st.data())
def test_whoever_is_left_out_no_class_goes_short(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    sites = clients(*rows)
    chosen = data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=1))
    losses = tuple(data.draw(st.lists(st.floats(0, 2), min_size=1, max_size=5)))
    count = st.integers(1, len(rows))
    trained = tuple(data.draw(st.lists(count, min_size=len(losses), max_size=len(losses))))
    shown = seen(sites, losses=losses, accuracies=(0.5,) * len(losses), participants=trained)
    wish = Decision.to_train(dict.fromkeys(sorted(chosen), 5), "")
    decision, notes = guard(wish, shown, SAFE)
    again, more = guard(decision, shown, SAFE)
    assert again == decision
    assert not more
    if len(decision.participants) == len(sites):
        return
    assert decision == wish
    assert not notes
    assert len(sites) in trained
    totals = [sum(c) for c in zip(*rows, strict=True)]
    held = [sum(rows[k][c] for k in chosen) for c in (0, 1)]
    if sum(totals) and sum(held):
        assert abs(held[0] / sum(held) - totals[0] / sum(totals)) <= 0.2 + 1e-12


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_the_variance_of_credit_is_that_of_its_weights(values: list[float]) -> None:
    level, variance = None, None
    weights = np.zeros(0)
    for n, value in enumerate(values, 1):
        variance = standing_variance(variance, level, value, 1.0, n)
        level = standing(level, value, 1.0, n)
        rate = max(1 / n, 0.3)
        weights = np.append(weights * (1 - rate), rate)
    centre = float(weights @ np.array(values))
    assert level == pytest.approx(centre, abs=1e-9)
    assert variance == pytest.approx(float(weights @ (np.array(values) - centre) ** 2), abs=1e-9)
    assert weights_squared(len(values)) == pytest.approx(float(weights @ weights), rel=1e-6)


def test_the_error_of_credit_is_the_textbooks() -> None:
    values = [0.1, 0.5, 0.3]
    variance = float(np.var(values))
    shown = view(0, standing=0.3, standing_variance=variance, chosen=3)
    assert standing_error(shown) == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert standing_error(shown.model_copy(update={"chosen": 2})) is None
    assert standing_error(view(0, chosen=9)) is None


def test_the_tests_are_known_by_name() -> None:
    shown = seen(ALIKE, participants=(4, 2, 2), losses=(0.5, 0.6, 0.6))
    assert why_not((0, 1), shown)[0] == TREND
    assert isinstance(shown, Observation)


def test_rounds_are_counted_by_what_spoke_against() -> None:
    lines = [
        [],
        [f"{EVERYBODY}{TREND}: worse"],
        ["client 1: bounded", f"{EVERYBODY}{CREDIT}: so: so"],
    ]
    assert counted([*lines, lines[1]]) == {CREDIT: 1, TREND: 2}
    assert counted([]) == {}


def frugal(*sites: ClientView, **changes: object) -> tuple[int, ...]:
    return FrugalAgent().decide(seen(sites, **{**GOOD, **changes})).participants


def test_frugal_takes_the_cheapest_clients_that_are_mixed_like_everybody() -> None:
    cost = {"circuits_per_step": 10}
    alike = clients(*[(5, 5)] * 4, **cost)
    dear = [one.model_copy(update={"circuit_price": 1.0 + one.client}) for one in alike]
    assert frugal(*dear) == (0, 1)  # half of the rows, mixed like all
    waited = [one.model_copy(update={"rounds_since": 2 * (one.client == 2)}) for one in dear]
    assert frugal(*waited) == (0, 2)  # of price 3, of which a third is left
    apart = clients((10, 0), (10, 0), (0, 10), (0, 10), **cost)
    assert frugal(*apart) == (0, 2)
    assert frugal(*apart, round=1) == (0, 1, 2, 3)
    spread = clients((10, 0), *[(20, 0)] * 3, *[(0, 20)] * 3, **cost)
    assert 0 not in frugal(harmful(spread[0]), *spread[1:])
    late = [*alike[:3], alike[3].model_copy(update={"rounds_since": 3, "circuit_price": 99.0})]
    assert frugal(*late) == (0, 1, 3)  # beside two of four it may rest for three rounds


@given(ROWS, st.integers(0, 12))
def test_what_frugal_wishes_is_harmless(rows: list[tuple[int, int]], since: int) -> None:
    sites = clients(*rows, circuits_per_step=3, rounds_since=since)
    shown = seen(sites, **{**GOOD, "participants": (len(sites),)})
    chosen = frugal(*sites, participants=(len(sites),))
    assert chosen
    if longest_rest(len(chosen), len(sites)) > since:  # nobody had to be added
        assert why_not(chosen, shown) == ("", "")


def test_frugal_reads_each_of_many_clients_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counting(one: ClientView) -> list[float]:
        read.append(one.client)
        return counted_rows(one)

    monkeypatch.setattr(frugal_agent, "counted_rows", counting)
    assert frugal_agent.cheapest_mix(clients(*[(5, 5)] * 40), 5)
    assert read == list(range(40))
