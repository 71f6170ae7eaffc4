from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from strategies.agents.regulator.encoding import (
    CLIENT,
    RUN,
    VOCABULARY,
    binned,
    decode,
    encode,
    merit,
    smoothed,
    states_of,
    steps_of,
    text_ids,
)
from strategies.decisions.contract import ClientView, Observation
from training.regulator.oracle import hindsight
from training.regulator.rollouts import advantages, in_order, in_place, play, to_go
from training.regulator.simulator import Federations, logits, losses_of, repeated, train
from training.regulator.tasks import Task, draw_task, weight_count


def small(seed: int = 0, federations: int = 3, clients: int = 4) -> tuple[Task, Federations]:
    rng = np.random.default_rng(seed)
    task = draw_task(rng, federations, clients)
    return task, Federations(task, rng)


def test_every_token_is_unique() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert VOCABULARY[0] == "pad"


def test_numbers_fall_into_the_bin_between_their_edges() -> None:
    price = {"price": RUN["price"]}
    values = np.array([[0.0], [0.0002], [0.003], [1.0], [np.nan]])
    tokens = [VOCABULARY[i] for i in binned(values, price)[:, 0]]
    assert tokens == ["price0", "price1", "price4", "price7", "price?"]


def test_a_text_has_eight_words_on_the_run_and_seven_a_client() -> None:
    ids = text_ids(np.zeros((2, len(RUN))), np.zeros((2, 5, len(CLIENT))))
    assert ids.shape == (2, 8 + 7 * 5)
    assert decode(ids[0]).startswith("round0 left0 loss0 drop7 ")
    assert decode(ids[0]).endswith(" standing5 since0")


def test_a_real_observation_reads_as_the_simulated_state_that_it_describes() -> None:
    task, running = small(3, federations=2, clients=5)
    for levels in ([1, 0, 1, 2, 0], [0, 1, 1, 0, 0], [2, 0, 0, 0, 1]):
        running.step(steps_of(np.array([levels, levels], float), task.plain, task.most))
    simulated, orders = encode(running.states())
    spend = running.spend(task.plain[:, None])
    for at in range(2):
        known = {name: values[at] for name, values in running.known.items()}
        losses = [float(column[at]) for column in running.losses]

        def some(name: str, k: int, known: dict[str, np.ndarray] = known) -> float | None:
            value = float(known[name][k])
            return None if math.isnan(value) else value

        views = tuple(
            ClientView(
                client=k,
                rows=1,
                steps=1,
                loss=some("loss", k),
                llm_loss=some("llm_loss", k),
                credit=some("credit", k),
                standing=some("standing", k),
                seconds_per_step=some("pace", k),
                chosen=int(running.chosen[at, k]),
                rounds_since=int(some("since", k) or 0),
                circuits_fixed=round(1000 * spend[at, k]),
                circuit_price=0.001,
            )
            for k in range(5)
        )
        seen = Observation(
            round=running.round,
            rounds_left=int(task.rounds[at]) - running.round + 1,
            min_steps=1,
            max_steps=40,
            plain_steps=int(task.plain[at]),
            price=float(task.price[at]),
            idle_price=float(task.idle_price[at]),
            start_loss=losses[0],
            losses=tuple(losses[1:]),
            classes=task.classes,
            clients=views,
        )
        real, order = encode(states_of(seen))
        assert decode(real[0]) == decode(simulated[at])
        assert order[0].tolist() == orders[at].tolist()


def test_merit_is_standing_for_the_price_and_the_harmful_come_last() -> None:
    _, running = small(0, federations=1, clients=5)
    running.known["standing"] = np.array([[0.5, np.nan, -1.3, 1.2, np.nan]])
    running.task.prices[:] = [1, 3, 1, 4, 2]
    running.task.batch[:] = 16
    # (1 + standing) / price ** 0.6: 1.5, 0.52, harmful, 0.96, 0.66
    assert merit(running.states()).tolist() == [[0, 3, 4, 1, 2]]


def test_levels_return_to_their_clients() -> None:
    levels = np.array([[0.0, 1.0, 2.0], [4.0, 0.0, 0.5]])
    order = np.array([[2, 0, 1], [1, 2, 0]])
    assert in_order(levels, order).tolist() == [[2, 0, 1], [0, 0.5, 4]]
    assert (in_place(in_order(levels, order), order) == levels).all()


def test_softmax_regression_is_the_closed_form() -> None:
    weights = torch.randn(2, weight_count(3, 0, 2), generator=torch.manual_seed(0))
    rows = torch.randn(2, 5, 3, generator=torch.manual_seed(1))
    by_hand = rows @ weights[:, :6].view(2, 3, 2) + weights[:, None, 6:]
    assert torch.allclose(logits(weights, rows, 0, 2), by_hand, atol=1e-6)


def test_training_is_torchs_adam_client_by_client() -> None:
    task, _ = small(1)
    wanted = torch.tensor([0, 3, 7, 1])
    start = task.start[0].repeat(4, 1)
    ours = train(start, task.x[0], task.y[0], task.mask[0], wanted, task)
    for client, steps in enumerate(wanted.tolist()):
        weights = start[client].clone().requires_grad_(True)
        adam = torch.optim.Adam([weights], lr=task.rate)
        held = int(task.mask[0, client].sum())
        for _ in range(steps):
            adam.zero_grad()
            out = logits(weights[None], task.x[0, client, None, :held], task.hidden, task.classes)
            torch.nn.functional.cross_entropy(out[0], task.y[0, client, :held]).backward()
            adam.step()
        assert torch.allclose(ours[client], weights.detach(), atol=1e-5)


def test_credit_is_the_loss_without_the_client_less_the_loss() -> None:
    task, running = small(2)
    task.drop[:] = 0
    steps = steps_of(np.array([[1, 2, 0, 1]] * 3, float), task.plain, task.most)
    models = running.train_clients(steps)
    before = running.losses[0].copy()
    running.step(steps)
    for at, client in itertools.product(range(3), (0, 1, 3)):
        others = [k for k in (0, 1, 3) if k != client]
        weights = torch.as_tensor(task.rows[at, others], dtype=torch.float32)
        mean = (weights[:, None] * models[at, others]).sum(0) / weights.sum()
        alone = losses_of(mean[None], task.server_x[at, None], task.server_y[at, None], task)
        credit = float(alone) - running.losses[1][at]
        assert running.known["credit"][at, client] == pytest.approx(credit, abs=1e-5)
    assert np.isnan(running.known["credit"][:, 2]).all()
    assert (before >= 0).all()


def test_reward_is_the_fall_of_the_best_settled_loss_less_what_was_paid() -> None:
    task, running = small(4)
    task.drop[:] = 0
    everybody = steps_of(np.ones((3, 4)), task.plain, task.most)
    first = running.losses[0].copy()
    outcome = running.step(everybody)
    assert outcome.spend == pytest.approx(np.ones(3))
    best = np.minimum(first, (first + running.losses[1]) / 2)
    costs = task.price * outcome.spend + task.idle_price * outcome.idle
    assert outcome.reward == pytest.approx(first - best - costs)
    for _ in range(2):
        outcome = running.step(everybody)
    three = np.mean(running.losses[1:], axis=0)
    assert running.best == pytest.approx(
        np.minimum.reduce([best, np.mean(running.losses[:3], axis=0), three])
    )
    assert outcome.improvement == pytest.approx(
        np.maximum(np.minimum(best, np.mean(running.losses[:3], axis=0)) - three, 0)
    )


def test_a_settled_loss_is_the_mean_of_three_rounds() -> None:
    course = smoothed(np.array([[3.0, 0.0, 6.0, 3.0, 0.0]]))
    assert course == pytest.approx(np.array([[3.0, 1.5, 3.0, 3.0, 3.0]]))


def test_a_stopped_federation_stands_still_and_costs_nothing() -> None:
    task, running = small(5)
    running.stop(np.array([True, False, False]))
    weights = running.weights[0].clone()
    outcome = running.step(steps_of(np.ones((3, 4)), task.plain, task.most))
    assert outcome.reward[0] == 0
    assert torch.equal(running.weights[0], weights)
    assert outcome.spend[1] == pytest.approx(1)


def test_runs_of_a_group_begin_alike() -> None:
    task, _ = small(6)
    twins = Federations(repeated(task, 2), np.random.default_rng(0))
    assert (twins.losses[0][0::2] == twins.losses[0][1::2]).all()
    assert twins.task.rows.shape == (6, 4)


def test_hindsight_is_no_worse_than_the_best_client_alone_and_no_better_than_all_sets() -> None:
    task, running = small(7, federations=4, clients=3)
    task.drop[:] = 0
    stop, levels = hindsight(running)
    paid = running.spend(task.plain[:, None]).sum(1)

    def value(at: int, chosen: tuple[int, ...], level: float) -> float:
        steps = np.zeros((4, 3), dtype=np.int64)
        steps[at, list(chosen)] = steps_of(np.full((4, 3), level), task.plain, task.most)[at, 0]
        models = running.train_clients(steps)[at, list(chosen)]
        weights = torch.as_tensor(task.rows[at, list(chosen)], dtype=torch.float32)
        mean = (weights[:, None] * models).sum(0) / weights.sum()
        loss = losses_of(mean[None], task.server_x[at, None], task.server_y[at, None], task)
        spend = running.spend(steps.astype(float))[at, list(chosen)].sum() / paid[at]
        busy = steps[at, list(chosen)] * task.pace[at, list(chosen)] + task.queue[at, list(chosen)]
        plain = (task.plain[at] * task.pace[at] + task.queue[at]).sum()
        idle = (busy.max() - busy).sum() / plain
        fall = running.losses[0][at] - float(loss)
        return float(fall - task.price[at] * spend - task.idle_price[at] * idle)

    sets = [s for size in (1, 2, 3) for s in itertools.combinations(range(3), size)]
    for at in range(4):
        chosen = tuple(int(k) for k in np.flatnonzero(levels[at]))
        ours = value(at, chosen, float(levels[at].max()))
        every = {(s, level): value(at, s, level) for s in sets for level in (0.5, 1, 2, 4)}
        singles = max(v for (s, _), v in every.items() if len(s) == 1)
        assert singles - 1e-5 <= ours <= max(every.values()) + 1e-5
        assert stop[at] == (ours < 0)


def test_advantages_compare_what_was_left_to_earn_within_a_group() -> None:
    rewards = np.array([[1.0, 3.0, 0.0, 0.0], [1.0, 0.0, 0.0, 4.0]])
    assert (to_go(rewards) == [[2, 3, 0, 4], [1, 0, 0, 4]]).all()
    centred = np.array([[-0.5, 0.5, -2, 2], [0.5, -0.5, -2, 2]])
    sizes = np.array([0.5, 0.5, 2, 2])
    assert advantages(rewards, 2) == pytest.approx(centred / sizes)


def test_playing_keeps_the_decisions_of_running_federations_only() -> None:
    task, running = small(8)
    task.rounds[:] = 3

    def decide(
        now: Federations, ids: torch.Tensor, order: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return np.array([now.round == 2, False, False]), np.ones((3, 4))

    steps, rewards = play(running, decide)
    assert steps.federation.tolist() == [0, 1, 2, 0, 1, 2, 1, 2]
    assert steps.round.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert rewards.shape == (3, 3)
    # Who stops hands over its last model: what that is better than the smoothed loss still counts.
    first, last = running.losses[0][0], running.losses[1][0]
    assert rewards[1, 0] == pytest.approx(max(min(first, (first + last) / 2) - last, 0))
    assert rewards[2, 0] == 0
