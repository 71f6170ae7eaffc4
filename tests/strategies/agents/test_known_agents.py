"""Oort and power-of-choice: what their papers say, on observations small enough to do by hand."""

from collections import Counter

import numpy as np
import pytest

from strategies import build_agent
from strategies.agents.oort import CUTOFF, OortAgent, _drawn, _stale, _system
from strategies.agents.power_of_choice import PowerOfChoiceAgent
from tests.strategies.agents.observations import seen, settings_of, view


def test_power_of_choice_takes_the_highest_losses_of_those_drawn() -> None:
    losses = [0.1, 0.9, 0.5, None]
    clients = [view(k, loss=loss) for k, loss in enumerate(losses)]
    # m = 2 of 4, d = 3: client 3, of no known loss, is chosen whenever it is drawn.
    found = Counter[tuple[int, ...]]()
    for number in range(1, 2001):
        decision = PowerOfChoiceAgent(0.5, 0).decide(seen(clients, round=number))
        found[decision.participants] += 1
    assert set(found) == {(1, 2), (1, 3), (2, 3)}  # without 3; without 0 or 2; without 1
    assert found[(1, 2)] / 2000 == pytest.approx(0.25, abs=0.04)
    assert found[(1, 3)] / 2000 == pytest.approx(0.5, abs=0.04)


def test_power_of_choice_draws_by_rows() -> None:
    clients = [view(0, rows=30, loss=0.1), view(1, rows=10, loss=0.1), view(2, rows=10, loss=0.1)]
    agent = PowerOfChoiceAgent(0.3, 1)  # m = 1, d = 2: equal losses, so the first of those drawn
    found = Counter(agent.decide(seen(clients, round=n)).participants for n in range(1, 2001))
    without = 2 * 0.2 * 0.2 / 0.8  # client 0 is in neither draw
    assert found[(0,)] / 2000 == pytest.approx(1 - without, abs=0.03)


def test_oort_first_tries_those_that_are_new() -> None:
    clients = [view(k) for k in range(4)]
    agent = OortAgent(0.5, 0)
    first = agent.decide(seen(clients, round=1)).participants
    assert len(first) == 2
    trained = [
        view(k, loss=0.5, chosen=1) if k in first else view(k, rounds_since=1) for k in range(4)
    ]
    second = agent.decide(seen(trained, round=2))
    assert len(second.participants) == 2
    assert not set(second.participants) & set(first)  # ceil(0.9 x 0.98 x 2) places of 2
    assert second.reason == "0 by utility, 2 that are new"


def test_oort_prefers_rows_times_loss_and_who_is_quick() -> None:
    known = {"chosen": 1, "seconds_per_step": 1.0}
    clients = [
        view(0, rows=100, loss=0.5, **known),
        view(1, rows=10, loss=0.5, **known),
        view(2, rows=100, loss=0.5, chosen=1, seconds_per_step=4.0),
        view(3, rows=100, loss=0.05, **known),
    ]
    agent = OortAgent(0.25, 0)
    utility = agent._utilities(seen(clients, round=2, losses=(0.5,)))
    bonus = 50 * np.sqrt(0.1 * np.log(2))
    assert utility[0] == pytest.approx(50 + bonus)
    assert utility[1] == pytest.approx(5 + bonus)
    assert utility[2] == pytest.approx((50 + bonus) / 16)  # four times the preferred second
    assert agent.decide(seen(clients, round=2, losses=(0.5,))).participants == (0,)


def test_oort_remembers_who_has_waited() -> None:
    assert _stale(view(0, rounds_since=8), 10) == pytest.approx(np.sqrt(0.1 * np.log(10)))
    assert _stale(view(0, rounds_since=0), 10) == pytest.approx(np.sqrt(0.1 * np.log(10) / 9))
    assert _system(2.0, 1.0) == 0.25
    assert _system(1.0, 2.0) == 1.0


def test_oort_draws_among_those_near_the_last_place() -> None:
    utility = {0: 100.0, 1: 100.0, 2: CUTOFF * 100 + 0.01, 3: CUTOFF * 100 - 0.01}
    drawn = {tuple(sorted(_drawn(utility, 2, np.random.default_rng(k)))) for k in range(200)}
    assert drawn == {(0, 1), (0, 2), (1, 2)}


def test_oort_lets_slower_clients_in_where_utility_falls() -> None:
    clients = [view(k, chosen=1, loss=0.5, seconds_per_step=float(k + 1)) for k in range(5)]
    agent = OortAgent(0.2, 0, gained=[2.0] * 20 + [1.0] * 20)
    assert agent._preferred_time(seen(clients)) == pytest.approx(
        np.quantile(np.arange(10, 51, 10), 0.3)
    )
    rising = OortAgent(0.2, 0, gained=[1.0] * 20 + [2.0] * 20)
    assert rising._preferred_time(seen(clients)) == pytest.approx(
        np.quantile(np.arange(10, 51, 10), 0.2)
    )


@pytest.mark.parametrize("kind", ["oort", "power-of-choice"])
def test_they_repeat_themselves_and_choose_their_share(kind: str) -> None:
    clients = [view(k, loss=0.1 + k / 10, chosen=1) for k in range(10)]
    settings = settings_of(f"agent.kind={kind}", "agent.fraction=0.3")
    for number in (2, 3):
        shown = seen(clients, round=number)
        decision = build_agent(settings).decide(shown)
        assert decision == build_agent(settings).decide(shown)
        assert len(decision.participants) == 3
        assert not decision.stop
