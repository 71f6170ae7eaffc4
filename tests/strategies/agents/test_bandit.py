from __future__ import annotations

import math
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from core import Settings, SettingsError, parse_run
from strategies import build_agent
from strategies.agents.bandit import (
    RIDGE,
    LinUcbAgent,
    Option,
    UcbAgent,
    best_set,
    waiting,
)
from strategies.agents.greedy import GreedyAgent
from strategies.decisions import Agent, ClientView, Decision, Observation
from strategies.decisions.client_value import FEATURES, BenefitHistory, client_features
from strategies.decisions.guard import guard
from tests.strategies.agents.observations import seen, settings_of, view
from tests.strategies.agents.softmax_federation import draw, simulate

KINDS = {
    "greedy": ("agent.kind=greedy",),
    "bandit (ucb)": ("agent.kind=bandit", "agent.bandit=ucb"),
    "bandit (linucb)": ("agent.kind=bandit", "agent.bandit=linucb"),
}
BANDITS = list(KINDS)[1:]


def build(kind: str, *given: str) -> Agent:
    return build_agent(settings_of(*KINDS[kind], *given))


def priced(client: int, **changes: Any) -> ClientView:
    return view(client, **{"circuits_per_step": 10, "rounds_since": 0, "chosen": 1, **changes})


def test_the_names_say_who_decides() -> None:
    assert [build(kind).name for kind in KINDS] == list(KINDS)


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


def evaluated(number: int, credits: dict[int, float | None], chosen: dict[int, int]) -> Observation:
    """Return an observation of three clients after a round that evaluated some of them."""
    clients = [
        priced(k, chosen=chosen[k], rounds_since=0 if k in credits else 1, credit=credits.get(k))
        for k in range(3)
    ]
    losses = tuple(1.0 - 0.1 * k for k in range(number - 1))
    return seen(clients, round=number, plain_steps=10, plain_spend=300.0, losses=losses)


def test_the_ucb_index_by_hand() -> None:
    agent = UcbAgent(1.0, 0.5)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    agent.decide(evaluated(2, {0: 0.3, 1: 0.1, 2: -0.2}, {0: 1, 1: 1, 2: 1}))
    assert agent.bound(1) == pytest.approx(0.1 + 0.5 * 0.2 * math.sqrt(math.log(4)))
    agent.decide(evaluated(3, {0: 0.1}, {0: 2, 1: 1, 2: 1}))
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
    shown = evaluated(2, {0: 0.02, 1: 0.005, 2: -0.01}, {0: 1, 1: 1, 2: 1})
    assert agent.decide(shown).participants == (0, 1)
    again = UcbAgent(1.0, 0.0)
    again.decide(seen([view(k) for k in range(3)], round=1))
    dear = shown.model_copy(update={"price": 0.03})  # a third of it each: 0.01
    assert again.decide(dear).participants == (0,)


def test_alike_clients_give_nothing_beside_each_other_and_one_goes_on() -> None:
    agent = UcbAgent(1.0, 0.3)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    shown = evaluated(2, {0: 0.0, 1: 0.0, 2: 0.0}, {0: 1, 1: 1, 2: 1})
    shown = shown.model_copy(update={"price": 0.03, "start_loss": 1.3})
    decided = agent.decide(shown)
    assert decided.participants == (0,)
    assert not decided.stop
    flat = shown.model_copy(update={"start_loss": 1.005})
    assert agent.decide(flat).stop


def test_a_client_of_which_nothing_is_known_comes_first() -> None:
    agent = UcbAgent(0.3, 0.3)
    agent.decide(seen([view(k) for k in range(3)], round=1))
    shown = evaluated(2, {0: 0.3, 1: 0.1}, {0: 1, 1: 1, 2: 0})
    assert agent.decide(shown).participants == (2,)


def learnt(agent: LinUcbAgent, rounds: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Feed random observations; return the rows and targets that the agent should have fitted."""
    rng = np.random.default_rng(0)
    history, rows, targets = BenefitHistory(), [], []
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
            history.add({v.client: v.credit or 0.0 for v in clients})
            for v in clients:
                row = asked[v.client].row(v.steps)
                rows.append(row)
                targets.append((v.credit or 0.0) / history.scale - asked[v.client].mean_benefit)
        asked = client_features(shown, history)
    return np.array(rows), np.array(targets)


def test_the_linear_model_is_the_ridge_solution() -> None:
    agent = LinUcbAgent(1.0, 0.3)
    rows, targets = learnt(agent)
    theta = np.linalg.solve(agent.gram, agent.moment)
    fitted = Ridge(alpha=RIDGE, fit_intercept=False).fit(rows, targets)
    np.testing.assert_allclose(theta, fitted.coef_, rtol=1e-8, atol=1e-10)
    stacked = np.vstack([rows, math.sqrt(RIDGE) * np.eye(FEATURES)])
    padded = np.append(targets, np.zeros(FEATURES))
    np.testing.assert_allclose(theta, np.linalg.lstsq(stacked, padded, rcond=None)[0], atol=1e-10)


def test_before_it_knows_more_the_record_alone_speaks() -> None:
    agent = LinUcbAgent(1.0, 0.0)
    first = seen([priced(k, chosen=0) for k in range(3)], round=1, plain_steps=10)
    agent.learn(first)
    agent.history.add({0: 0.3, 1: 0.1, 2: -0.2})
    agent._features = client_features(evaluated(2, {}, {0: 1, 1: 1, 2: 1}), agent.history)
    options = agent._options(evaluated(2, {}, {0: 1, 1: 1, 2: 1}))
    assert [(o.client, o.steps) for o in options[:3]] == [(0, 5), (0, 10), (0, 20)]
    assert [o.value for o in options[1::3]] == pytest.approx([0.3, 0.1, -0.2])


def test_the_width_is_that_of_the_ridge() -> None:
    narrow, wide = LinUcbAgent(1.0, 0.0), LinUcbAgent(1.0, 0.4)
    rows, _ = learnt(narrow)
    learnt(wide)
    inverse = np.linalg.inv(rows.T @ rows + RIDGE * np.eye(FEATURES))
    shown = evaluated(7, {}, {0: 6, 1: 6, 2: 6})
    for agent in (narrow, wide):
        agent._features = client_features(shown, agent.history)
    pairs = zip(narrow._options(shown), wide._options(shown), strict=True)
    for without, with_width in pairs:
        row = narrow._features[without.client].row(without.steps)
        width = 0.4 * narrow.history.scale * math.sqrt(row @ inverse @ row)
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


@pytest.mark.parametrize("kind", BANDITS)
def test_the_share_of_harmful_clients_falls(kind: str) -> None:
    shares = []
    for seed in range(3):
        given = settings_of(
            *KINDS[kind],
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
@pytest.mark.parametrize("credited", [True, False])
def test_replaying_what_was_recorded_gives_the_same_decisions(kind: str, credited: bool) -> None:
    size = "run.clients=6", "run.rounds=8", "train.steps=10", "agent.fraction=0.7"
    given = settings_of(*KINDS[kind], *size)
    ran = simulate(draw(3, clients=6), build_agent(given), given, credited=credited)
    again = build_agent(given)
    for shown, decision in zip(ran.seen, ran.decisions, strict=True):
        recorded = Observation.model_validate_json(shown.model_dump_json())
        assert guard(again.decide(recorded), recorded, given)[0] == decision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clients", [1, 50])
def test_one_client_and_fifty(kind: str, clients: int) -> None:
    size = f"run.clients={clients}", "run.rounds=5", "train.steps=4", "agent.fraction=0.1"
    given = settings_of(*KINDS[kind], *size, "agent.price=0")
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
@given(st.sampled_from(list(KINDS)), histories(), st.sampled_from([0.2, 0.5, 1.0]))
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


# --- the best set of options ----------------------------------------------------------------


def value_of(chosen: tuple[Option, ...], wait: float) -> float:
    return sum(option.value for option in chosen) - wait * waiting(chosen)


def test_those_that_pay_train_and_no_more_than_allowed() -> None:
    options = [Option(0, 5, 0.3), Option(1, 5, -0.1), Option(2, 5, 0.1), Option(3, 5, 0.2)]
    assert [o.client for o in best_set(options, 4)] == [0, 2, 3]
    assert [o.client for o in best_set(options, 2)] == [0, 3]


def test_where_nobody_pays_the_nearest_trains_alone() -> None:
    options = [Option(0, 5, -0.3), Option(1, 5, -0.1, tried=2), Option(2, 5, -0.1, tried=1)]
    assert [o.client for o in best_set(options, 3)] == [2]


def test_a_slow_client_is_left_out_where_the_others_waiting_is_dearer() -> None:
    options = [
        Option(0, 5, 0.3, seconds=1),
        Option(1, 5, 0.3, seconds=1),
        Option(2, 5, 0.1, seconds=9),
    ]
    assert [o.client for o in best_set(options, 3, wait=0.01)] == [0, 1]
    assert [o.client for o in best_set(options, 3, wait=0.005)] == [0, 1, 2]
    assert waiting(options) == pytest.approx(16)


def test_fewer_steps_of_a_slow_client_may_pay() -> None:
    slow = [Option(1, 5, 0.08, seconds=5), Option(1, 10, 0.1, seconds=10)]
    chosen = best_set([Option(0, 10, 0.3, seconds=5), *slow], 2, wait=0.01)
    assert [(o.client, o.steps) for o in chosen] == [(0, 10), (1, 5)]


@given(
    st.lists(st.tuples(st.integers(-4, 6), st.integers(0, 4)), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(-4, 6), st.integers(0, 4)), min_size=4, max_size=4),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.25, 1.0, 3.0]),
)
def test_no_set_has_more_value(
    short: list[tuple[int, int]], long: list[tuple[int, int]], most: int, wait: float
) -> None:
    options = [Option(k, 5, v, seconds=s) for k, (v, s) in enumerate(short)]
    options += [Option(k, 10, v, seconds=s) for k, (v, s) in enumerate(long)]
    chosen = best_set(options, most, wait)
    every = [
        value_of(one, wait)
        for size in range(1, most + 1)
        for clients in combinations(range(4), size)
        for one in product(*([o for o in options if o.client == k] for k in clients))
    ]
    assert len({o.client for o in chosen}) == len(chosen) <= most
    if max(every) > 0:
        assert value_of(chosen, wait) == pytest.approx(max(every))
    else:
        assert chosen == (min(options, key=lambda o: (-o.value, o.seconds, o.client, o.steps)),)
