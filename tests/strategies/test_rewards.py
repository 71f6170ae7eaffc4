from __future__ import annotations

import math

import pytest

from strategies.agents.client_records import Records
from strategies.agents.rewards import (
    benefit,
    benefits,
    improvement,
    spend_worth,
    step_seconds,
    trained_last,
    wait_worth,
)
from tests.strategies.test_guard_and_agents import seen, view


def test_who_trained_last_is_who_trained_once_more() -> None:
    shown = seen(
        [
            view(0, chosen=3, rounds_since=0),
            view(1, chosen=2, rounds_since=0, failures=1),  # asked and failed
            view(2, chosen=2, rounds_since=1),
            view(3, chosen=1, rounds_since=0),
            view(4, chosen=1, rounds_since=3),  # the agent was not asked before
        ]
    )
    before = {0: 2, 1: 2, 2: 2}
    assert [v.client for v in trained_last(shown, before)] == [0, 3]


def test_a_benefit_is_the_credit_else_the_gain_else_what_its_own_loss_fell_by() -> None:
    assert benefit(view(0, credit=-0.2, gain=0.3, trend=-0.5)) == -0.2
    assert benefit(view(0, gain=0.3, trend=-0.5)) == 0.3
    assert benefit(view(0, trend=-0.5)) == 0.5
    assert benefit(view(0)) is None
    assert benefits([view(0, credit=0.0), view(1)]) == {0: 0.0}


def test_improvement_is_the_fall_of_the_best_loss() -> None:
    shown = seen([view(0)], start_loss=1.0, losses=(0.7, 0.5, 0.6))
    assert improvement(shown, 1) == 0
    assert improvement(shown, 2) == pytest.approx(0.1)
    assert improvement(shown, 9) == pytest.approx(0.5 / 3)
    assert improvement(seen([view(0)], losses=(0.7,)), 2) is None
    assert improvement(seen([view(0)], losses=(0.7, 0.4)), 2) == pytest.approx(0.3)


def test_prices_are_shares_of_a_plain_round() -> None:
    clients = [
        view(0, circuits_per_step=10, circuits_fixed=20, circuit_price=5, seconds_per_step=2.0),
        view(1, circuits_per_step=10, circuits_fixed=20, seconds_per_step=1.0),
        view(2, circuits_per_step=10, circuits_fixed=20),
    ]
    shown = seen(clients, plain_steps=10, plain_spend=840.0, price=0.007, idle_price=0.09)
    assert spend_worth(clients[0], 10, shown) == pytest.approx(0.007 * 600 / 840)
    assert step_seconds(shown) == {0: 2.0, 1: 1.0, 2: 1.5}
    assert wait_worth(shown) == pytest.approx(0.09 / 45)
    nothing = seen([view(0)])
    assert spend_worth(nothing.clients[0], 10, nothing) == 0
    assert wait_worth(nothing) == 0


def test_records_forget_by_rounds_judged() -> None:
    records = Records()
    assert records.mean(0) is None
    records.add({0: 0.4, 1: -0.2})
    records.add({})
    records.add({0: 0.1})
    assert records.count(0) == pytest.approx(1.9)
    assert records.mean(0) == pytest.approx((0.9 * 0.4 + 0.1) / 1.9)
    assert records.count(1) == pytest.approx(0.9)
    assert records.mean(1) == pytest.approx(-0.2)
    assert records.total == pytest.approx(2.8)
    assert records.scale == pytest.approx((0.3 + 0.1) / 2)
    assert math.isclose(records.total, records.count(0) + records.count(1))
