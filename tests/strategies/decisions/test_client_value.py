from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from strategies.decisions import ClientView
from strategies.decisions.client_value import (
    FEATURES,
    BenefitHistory,
    benefit,
    benefits,
    circuit_cost,
    client_features,
    improvement,
    step_seconds,
    trained_last,
    waiting_cost,
)
from tests.strategies.agents.observations import seen, view


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
    assert circuit_cost(clients[0], 10, shown) == pytest.approx(0.007 * 600 / 840)
    assert step_seconds(shown) == {0: 2.0, 1: 1.0, 2: 1.5}
    assert waiting_cost(shown) == pytest.approx(0.09 / 45)
    nothing = seen([view(0)])
    assert circuit_cost(nothing.clients[0], 10, nothing) == 0
    assert waiting_cost(nothing) == 0


def test_the_history_forgets_by_rounds_evaluated() -> None:
    history = BenefitHistory()
    assert history.mean(0) is None
    history.add({0: 0.4, 1: -0.2})
    history.add({})
    history.add({0: 0.1})
    assert history.count(0) == pytest.approx(1.9)
    assert history.mean(0) == pytest.approx((0.9 * 0.4 + 0.1) / 1.9)
    assert history.count(1) == pytest.approx(0.9)
    assert history.mean(1) == pytest.approx(-0.2)
    assert history.total == pytest.approx(2.8)
    assert history.scale == pytest.approx((0.3 + 0.1) / 2)
    assert math.isclose(history.total, history.count(0) + history.count(1))


NAMES = [
    *("constant", "rows", "loss", "llm_loss", "ratio", "trend", "credit", "gain", "cost", "pace"),
    *("away", "failures", "steps"),
]


def trained(client: int, **changes: Any) -> ClientView:
    return view(client, **{"circuits_per_step": 10, "rounds_since": 0, "chosen": 1, **changes})


def test_features_by_hand() -> None:
    clients = [
        trained(
            0,
            rows=10,
            loss=0.7,
            llm_loss=0.2,
            ratio=math.e,
            trend=-0.1,
            credit=0.1,
            gain=-0.4,
            seconds_per_step=1.0,
            rounds_since=2,
            failures=1,
        ),
        trained(1, rows=30, llm_loss=0.6, credit=-0.3, circuit_price=3, seconds_per_step=3.0),
    ]
    shown = seen(clients, plain_steps=10, losses=(0.9, 0.5))
    history = BenefitHistory()
    history.add({0: 0.2})
    found = client_features(shown, history)
    assert dict(zip(NAMES, found[0].row(20), strict=True)) == pytest.approx(
        {
            "constant": 1,
            "rows": -1,
            "loss": 0.4,
            "llm_loss": -0.4,
            "ratio": 1,
            "trend": -0.5,
            "credit": 0.5,
            "gain": -1,
            "cost": -1,
            "pace": -1,
            "away": 0.4,
            "failures": 0.5,
            "steps": 1,
        }
    )
    assert found[1].row(5)[[1, 3, 6, -1]] == pytest.approx([math.log2(1.5), 0.4, -1.5, -1])
    assert (found[0].mean_benefit, found[1].mean_benefit) == (1.0, 1.0)


def test_features_are_of_order_one_and_missing_numbers_are_zero() -> None:
    wild = [
        trained(0, rows=10**6, loss=1e9, ratio=math.inf, trend=-1e9, failures=9, rounds_since=90),
        view(1, rows=1),
        view(2, rows=0),
    ]
    found = client_features(seen(wild, losses=(0.5,)), BenefitHistory())
    rows = np.array([found[k].row(10) for k in range(3)])
    assert rows.shape == (3, FEATURES)
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 3
    silent = dict(zip(NAMES, found[2].row(10), strict=True))
    assert silent.pop("constant") == 1
    assert set(silent.values()) == {0.0}
