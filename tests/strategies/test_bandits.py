from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from core import Settings, SettingsError, parse_run
from strategies import build_agent
from strategies.agents import Agent, ClientView, Decision, Observation
from strategies.agents.bandits import RIDGE, GreedyAgent, LinUcbAgent, UcbAgent
from strategies.agents.client_features import FEATURES, client_features
from strategies.agents.client_records import Records
from strategies.agents.guard import guard
from tests.strategies.softmax_federation import draw, simulate
from tests.strategies.test_guard_and_agents import seen, settings_of, view

KINDS = ("agent.kind=greedy", "agent.bandit=ucb", "agent.bandit=linucb")


def build(kind: str, *given: str) -> Agent:
    more = () if "greedy" in kind else ("agent.kind=bandit",)
    return build_agent(settings_of(kind, *more, *given))


def priced(client: int, **changes: Any) -> ClientView:
    return view(client, **{"circuits_per_step": 10, "rounds_since": 0, "chosen": 1, **changes})


def test_the_names_say_who_decides() -> None:
    assert [build(kind).name for kind in KINDS] == ["greedy", "bandit (ucb)", "bandit (linucb)"]


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_is_tried_first_with_the_plain_steps(kind: str) -> None:
    shown = seen([view(k, steps=10) for k in range(3)], round=1, plain_steps=10)
    decided = build(kind, "agent.fraction=0.4").decide(shown)
    assert decided.participants == (0, 1, 2)
    assert decided.steps == {0: 10, 1: 10, 2: 10}


def test_greedy_ranks_loss_times_relative_spend() -> None:
    clients = [
        priced(0, loss=0.5),  # 0.5 * 0.75
        priced(1, loss=0.2, circuit_price=2),  # 0.2 * 1.5
        priced(2, loss=0.45, circuit_price=1),  # 0.45 * 0.75
        priced(3, circuit_price=2 / 3 * 2),  # unknown: first
    ]
    shown = seen(clients, plain_steps=10)
    assert GreedyAgent(0.5).decide(shown).participants == (1, 3)
    assert GreedyAgent(0.75).decide(shown).participants == (1, 2, 3)


def test_greedy_stops_when_the_last_round_did_not_pay_for_the_next() -> None:
    clients = [priced(0, loss=0.5), priced(1, loss=0.6)]
    facts: dict[str, Any] = {"plain_steps": 10, "plain_spend": 200.0, "price": 0.02}
    stopping = seen(clients, start_loss=1.0, losses=(0.5, 0.491), **facts)
    decided = GreedyAgent(0.5).decide(stopping)
    assert decided.stop  # one of two clients: half of 0.02 is more than 0.009
    assert decided.reason == "the last round improved by 0.00900 nats, the next would cost 0.01000"
    assert not GreedyAgent(0.5).decide(seen(clients, losses=(0.5, 0.489), **facts)).stop


def judged(number: int, credits: dict[int, float | None], chosen: dict[int, int]) -> Observation:
    """Return an observation of three clients after a round that judged some of them."""
    clients = [
        priced(k, chosen=chosen[k], rounds_since=0 if k in credits else 1, credit=credits.get(k))
        for k in range(3)
    ]
    losses = tuple(1.0 - 0.1 * k for k in range(number - 1))
    return seen(clients, round=number, plain_steps=10, plain_spend=300.0, losses=losses)


def test_the_ucb_index_by_hand() -> None:
    agent = UcbAgent(1.0, 0.5)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    agent.decide(judged(2, {0: 0.3, 1: 0.1, 2: -0.2}, {0: 1, 1: 1, 2: 1}))
    assert agent.bound(1) == pytest.approx(0.1 + 0.5 * 0.2 * math.sqrt(math.log(4)))
    agent.decide(judged(3, {0: 0.1}, {0: 2, 1: 1, 2: 1}))
    scale = (0.2 + 0.1) / 2
    total = 1.9 + 0.9 + 0.9
    assert agent.bound(0) == pytest.approx(
        (0.27 + 0.1) / 1.9 + 0.5 * scale * math.sqrt(math.log(1 + total) / 1.9)
    )
    assert agent.bound(2) == pytest.approx(
        -0.2 + 0.5 * scale * math.sqrt(math.log(1 + total) / 0.9)
    )
    assert UcbAgent(1.0, 0.5).bound(0) == 1.0


def test_a_harmful_client_sits_out_and_a_dear_one_must_earn_its_price() -> None:
    agent = UcbAgent(1.0, 0.0)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    shown = judged(2, {0: 0.02, 1: 0.005, 2: -0.01}, {0: 1, 1: 1, 2: 1})
    assert agent.decide(shown).participants == (0, 1)
    again = UcbAgent(1.0, 0.0)
    again.decide(seen([view(k) for k in range(3)], round=1))
    dear = shown.model_copy(update={"price": 0.03})  # a third of it each: 0.01
    assert again.decide(dear).participants == (0,)


def test_alike_clients_give_nothing_beside_each_other_and_one_goes_on() -> None:
    agent = UcbAgent(1.0, 0.3)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    shown = judged(2, {0: 0.0, 1: 0.0, 2: 0.0}, {0: 1, 1: 1, 2: 1})
    shown = shown.model_copy(update={"price": 0.03, "start_loss": 1.3})
    decided = agent.decide(shown)
    assert decided.participants == (0,)
    assert not decided.stop
    flat = shown.model_copy(update={"start_loss": 1.005})
    assert agent.decide(flat).stop


def test_a_client_of_which_nothing_is_known_comes_first() -> None:
    agent = UcbAgent(0.3, 0.3)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    shown = judged(2, {0: 0.3, 1: 0.1}, {0: 1, 1: 1, 2: 0})
    assert agent.decide(shown).participants == (2,)


def learnt(agent: LinUcbAgent, rounds: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Feed random observations; return the rows and targets that the agent should have fitted."""
    rng = np.random.default_rng(0)
    records, rows, targets = Records(), [], []
    asked: dict[int, Any] = {}
    for number in range(1, rounds + 1):
        clients = [
            priced(
                k,
                rows=int(rng.integers(10, 90)),
                chosen=number - 1,
                steps=int(rng.integers(5, 21)),
                loss=float(rng.random()),
                llm_loss=float(rng.random()),
                ratio=float(rng.random()) + 0.1,
                seconds_per_step=float(rng.random()) + 0.1,
                credit=float(rng.normal()) if number > 1 else None,
                gain=float(rng.normal()) if number > 1 else None,
            )
            for k in range(5)
        ]
        losses = tuple(2.0 - 0.1 * k for k in range(number - 1))
        shown = seen(clients, round=number, plain_steps=10, plain_spend=500.0, losses=losses)
        agent.decide(shown)
        if number > 1:
            records.add({v.client: v.credit or 0.0 for v in clients})
            for v in clients:
                row = asked[v.client].row(v.steps)
                rows.append(row)
                targets.append((v.credit or 0.0) / records.scale - asked[v.client].record)
        asked = client_features(shown, records)
    return np.array(rows), np.array(targets)


def test_the_linear_model_is_the_ridge_solution() -> None:
    agent = LinUcbAgent(1.0, 0.3)
    rows, targets = learnt(agent)
    theta = np.linalg.solve(agent.gram, agent.moment)
    fitted = Ridge(alpha=RIDGE, fit_intercept=False).fit(rows, targets)
    np.testing.assert_allclose(theta, fitted.coef_, rtol=1e-8, atol=1e-10)
    stacked = np.vstack([rows, math.sqrt(RIDGE) * np.eye(len(FEATURES))])
    padded = np.append(targets, np.zeros(len(FEATURES)))
    np.testing.assert_allclose(theta, np.linalg.lstsq(stacked, padded, rcond=None)[0], atol=1e-10)


def test_before_it_knows_more_the_record_alone_speaks() -> None:
    agent = LinUcbAgent(1.0, 0.0)
    first = seen([priced(k, chosen=0) for k in range(3)], round=1, plain_steps=10)
    agent.learn(first)
    agent.records.add({0: 0.3, 1: 0.1, 2: -0.2})
    agent._asked = client_features(judged(2, {}, {0: 1, 1: 1, 2: 1}), agent.records)
    options = agent._options(judged(2, {}, {0: 1, 1: 1, 2: 1}))
    assert [(o.client, o.steps) for o in options[:3]] == [(0, 5), (0, 10), (0, 20)]
    assert [o.value for o in options[1::3]] == pytest.approx([0.3, 0.1, -0.2])


def test_the_width_is_that_of_the_ridge() -> None:
    narrow, wide = LinUcbAgent(1.0, 0.0), LinUcbAgent(1.0, 0.4)
    rows, _ = learnt(narrow)
    learnt(wide)
    inverse = np.linalg.inv(rows.T @ rows + RIDGE * np.eye(len(FEATURES)))
    shown = judged(7, {}, {0: 6, 1: 6, 2: 6})
    for agent in (narrow, wide):
        agent._asked = client_features(shown, agent.records)
    pairs = zip(narrow._options(shown), wide._options(shown), strict=True)
    for without, with_width in pairs:
        row = narrow._asked[without.client].row(without.steps)
        width = 0.4 * narrow.records.scale * math.sqrt(row @ inverse @ row)
        assert with_width.value - without.value == pytest.approx(width)


def test_waiting_is_part_of_what_the_next_round_costs() -> None:
    clients = [
        priced(0, credit=0.5, seconds_per_step=1.0),
        priced(1, credit=0.4, seconds_per_step=3.0),
    ]
    agent = UcbAgent(1.0, 0.0)
    agent.decide(seen([view(0), view(1)], round=1))
    # Together they wait 20 s of the 40 s that all work: half of idle_price.
    facts: dict[str, Any] = {"plain_steps": 10, "idle_price": 0.02, "start_loss": 1.0}
    decided = agent.decide(seen(clients, losses=(0.991,), **facts))
    assert decided.stop
    assert decided.reason.endswith("improved by 0.00900 nats, the next would cost 0.01000")
    assert not agent.decide(seen(clients, losses=(0.989,), **facts)).stop


def test_features_by_hand() -> None:
    clients = [
        priced(
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
        priced(1, rows=30, llm_loss=0.6, credit=-0.3, circuit_price=3, seconds_per_step=3.0),
    ]
    shown = seen(clients, plain_steps=10, losses=(0.9, 0.5))
    records = Records()
    records.add({0: 0.2})
    found = client_features(shown, records)
    assert dict(zip(FEATURES, found[0].row(20), strict=True)) == pytest.approx(
        {
            "constant": 1,
            "rows": -1,
            "loss": 0.4,
            "llm_loss": -0.4,
            "ratio": 1,
            "trend": -0.5,
            "credit": 0.5,
            "gain": -1,
            "spend": -1,
            "pace": -1,
            "away": 0.4,
            "failures": 0.5,
            "steps": 1,
        }
    )
    assert found[1].row(5)[[1, 3, 6, -1]] == pytest.approx([math.log2(1.5), 0.4, -1.5, -1])
    assert (found[0].record, found[1].record) == (1.0, 1.0)


def test_features_are_of_order_one_and_missing_numbers_are_zero() -> None:
    wild = [
        priced(0, rows=10**6, loss=1e9, ratio=math.inf, trend=-1e9, failures=9, rounds_since=90),
        view(1, rows=1),
        view(2, rows=0),
    ]
    found = client_features(seen(wild, losses=(0.5,)), Records())
    rows = np.array([found[k].row(1) for k in range(3)])
    assert rows.shape == (3, len(FEATURES))
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 3
    silent = dict(zip(FEATURES, found[2].row(1), strict=True))
    assert silent.pop("constant") == 1
    assert set(silent.values()) == {0.0}


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_share_of_harmful_clients_falls(kind: str) -> None:
    shares = []
    for seed in range(3):
        given = settings_of(
            kind,
            "agent.kind=bandit",
            "run.clients=10",
            "run.rounds=12",
            "train.steps=10",
            "agent.fraction=0.5",
            "agent.price=0.0005",
        )
        ran = simulate(draw(seed, noisy=2), build_agent(given), given)
        later = [k for decision in ran.decisions[1:] for k in decision.participants]
        assert ran.decisions[0].participants == tuple(range(10))
        shares.append(sum(k < 2 for k in later) / len(later))
        plain = simulate(draw(seed, noisy=2), build_agent(settings_of("agent.kind=all")), given)
        assert ran.spend < plain.spend
        assert ran.losses[-1] < plain.losses[-1]
    assert max(shares) < 0.1  # 0.2 by chance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("judged", [True, False])
def test_replaying_what_was_recorded_gives_the_same_decisions(kind: str, judged: bool) -> None:
    more = () if "greedy" in kind else ("agent.kind=bandit",)
    given = settings_of(
        kind, *more, "run.clients=6", "run.rounds=8", "train.steps=10", "agent.fraction=0.7"
    )
    ran = simulate(draw(3, clients=6), build_agent(given), given, judged=judged)
    again = build_agent(given)
    for shown, decision in zip(ran.seen, ran.decisions, strict=True):
        recorded = Observation.model_validate_json(shown.model_dump_json())
        assert guard(again.decide(recorded), recorded, given)[0] == decision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clients", [1, 50])
def test_one_client_and_fifty(kind: str, clients: int) -> None:
    more = () if "greedy" in kind else ("agent.kind=bandit",)
    given = settings_of(
        kind,
        *more,
        f"run.clients={clients}",
        "run.rounds=5",
        "agent.price=0",
        "train.steps=4",
        "agent.fraction=0.1",
    )
    ran = simulate(draw(0, clients=clients, noisy=clients // 5), build_agent(given), given)
    assert len(ran.losses) >= 2
    assert all(1 <= len(d.participants) <= max(1, clients // 10) for d in ran.decisions[1:])


number = st.none() | st.floats(-5, 5)


@st.composite
def histories(draw: st.DrawFn) -> list[Observation]:
    count = draw(st.integers(1, 5))
    chosen, shown = [0] * count, []
    for place in range(1, draw(st.integers(2, 5))):
        clients = []
        for k in range(count):
            took = draw(st.booleans())
            chosen[k] += took
            clients.append(
                view(
                    k,
                    rows=draw(st.integers(0, 50)),
                    chosen=chosen[k],
                    rounds_since=0 if took else 1,
                    steps=draw(st.integers(2, 50)),
                    circuits_per_step=draw(st.integers(0, 30)),
                    circuit_price=draw(st.sampled_from([0.5, 1.0, 5.0])),
                    **{
                        key: draw(number) for key in ("loss", "credit", "gain", "trend", "llm_loss")
                    },
                    ratio=draw(st.none() | st.floats(0, math.inf)),
                    seconds_per_step=draw(st.none() | st.floats(0, 10)),
                )
            )
        shown.append(
            seen(
                clients,
                round=place,
                plain_steps=draw(st.integers(2, 50)),
                plain_spend=draw(st.sampled_from([0.0, 100.0])),
                price=0.01,
                idle_price=draw(st.sampled_from([0.0, 0.01])),
                losses=tuple(draw(st.floats(0, 3)) for _ in range(place - 1)),
                start_loss=draw(st.none() | st.floats(0, 3)),
            )
        )
    return shown


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), histories(), st.sampled_from([0.2, 0.5, 1.0]))
def test_a_decision_is_always_one_that_the_guard_leaves_alone(
    kind: str, shown: list[Observation], fraction: float
) -> None:
    def decisions() -> list[Decision]:
        agent = build(kind, f"agent.fraction={fraction}")
        return [agent.decide(one) for one in shown]

    made = decisions()
    assert made == decisions()
    for one, decision in zip(shown, made, strict=True):
        known = {v.client for v in one.clients}
        assert decision.participants == tuple(sorted(set(decision.participants)))
        assert decision.participants
        assert set(decision.participants) <= known
        assert set(decision.steps) == set(decision.participants)
        assert all(one.min_steps <= m <= one.max_steps for m in decision.steps.values())
        bounded, notes = guard(decision.model_copy(update={"stop": False}), one, Settings())
        assert bounded.participants == decision.participants
        assert not notes


def test_greedy_is_refused_where_it_chooses_fewer_than_must_reply() -> None:
    with pytest.raises(SettingsError, match=r"raise agent\.fraction or lower run\.min_replies"):
        parse_run([], ["agent.kind=greedy", "agent.fraction=0.5", "run.min_replies=3"])
