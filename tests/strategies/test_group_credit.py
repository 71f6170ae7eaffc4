"""Credit from sums: the first order in closed form, the solution by a second method, its error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from strategies.credit import credits
from strategies.decisions import ClientView
from strategies.decisions.client_value import standing_error
from strategies.group_credit import (
    DISCOUNT,
    RIDGE,
    Estimate,
    GroupRound,
    credits_of,
    estimates,
    measured,
)
from strategies.grouping import Group, make_groups

Vectors = np.ndarray
CLIENTS = 12


def groupings(rounds: int, size: int = 3, seed: int = 0) -> list[tuple[Group, ...]]:
    past: list[tuple[Group, ...]] = []
    for number in range(rounds):
        past.append(make_groups(range(CLIENTS), size, np.random.default_rng([seed, number]), past))
    return past


class Quadratic:
    """Updates of one round on L(x) = slope'x + curvature |x|^2 / 2, with unequal weights."""

    def __init__(self, slope: Vectors, curvature: float, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.slope, self.curvature = slope, curvature
        self.updates = draw.normal(size=(CLIENTS, len(slope)))
        self.weights = draw.uniform(1, 3, CLIENTS)
        self.shares = self.weights / self.weights.sum()
        mean = self.shares @ self.updates
        self.updates -= mean  # the aggregate is 0, where the gradient is the slope

    def loss(self, x: Vectors) -> float:
        return float(self.slope @ x + self.curvature / 2 * x @ x)

    def credit(self, parts: list[Group]) -> dict[Group, float]:
        """Leave each part out: the server's own function, on parts' means."""
        models = {i: self._mean([part]) for i, part in enumerate(parts)}
        found = credits(
            models, lambda others: self._mean([parts[i] for i in others]), self.loss, None, 0.0
        )
        return {part: found[i].credit for i, part in enumerate(parts)}

    def _mean(self, parts: list[Group]) -> Vectors:
        at = [client for part in parts for client in part]
        return np.asarray(self.weights[at] @ self.updates[at] / self.weights[at].sum())

    def weight(self, groups: list[Group]) -> dict[Group, float]:
        return {group: float(self.weights[list(group)].sum()) for group in groups}


@pytest.fixture
def linear() -> Quadratic:
    return Quadratic(np.array([1.0, -2.0, 0.5]), 0.0)


def single(problem: Quadratic) -> np.ndarray:
    """Return what each client's own leave-one-out credit says of v / n, nats."""
    alone = problem.credit([(k,) for k in range(CLIENTS)])
    return np.array([(1 - problem.shares[k]) * alone[(k,)] for k in range(CLIENTS)])


def test_worth_of_a_group_is_the_sum_over_its_members_on_a_linear_loss(linear: Quadratic) -> None:
    groups = list(groupings(1)[0])
    found = measured(linear.credit(groups), linear.weight(groups), [])
    parts = single(linear)
    np.testing.assert_allclose(found.worth, [parts[list(group)].sum() for group in found.groups])
    assert sum(found.worth) == pytest.approx(0, abs=1e-12)  # what some lose the others gain


def test_second_order_of_a_group_in_closed_form() -> None:
    # (1 - P) credit = first order + h |sum p_i e_i|^2 / (2 (1 - P)), e_i from the aggregate.
    problem = Quadratic(np.array([1.0, -2.0, 0.5]), 0.7)
    flat = Quadratic(problem.slope, 0.0)
    groups = list(groupings(1)[0])
    curved, straight = (
        measured(one.credit(groups), one.weight(groups), []) for one in (problem, flat)
    )
    for group, worth, first in zip(curved.groups, curved.worth, straight.worth, strict=True):
        at = list(group)
        moved, share = problem.shares[at] @ problem.updates[at], problem.shares[at].sum()
        assert worth - first == pytest.approx(0.7 * moved @ moved / (2 * (1 - share)))


def rounds_of(
    values: np.ndarray, groupings: list[tuple[Group, ...]], noise: float = 0.0, seed: int = 0
) -> list[GroupRound]:
    """Return measured rounds of clients whose v are these, in units of a scale of 1."""
    draw = np.random.default_rng(seed)
    rounds = []
    for groups in groupings:
        here = [client for group in groups for client in group]
        rest = values - values[here].mean()
        exact = [rest[list(group)].sum() for group in groups]
        loud = [noise * math.sqrt(len(g)) * float(draw.normal()) for g in groups]
        worth = tuple((a + b) / len(here) for a, b in zip(exact, loud, strict=True))
        rounds.append(GroupRound(groups, worth, 1.0))
    return rounds


def centred(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=CLIENTS)
    return np.asarray(values - values.mean())


def test_without_noise_many_rounds_give_each_client_its_own() -> None:
    values = centred(1)
    found = estimates(rounds_of(values, groupings(40)))
    # What the prior takes away: RIDGE beside the information of the discounted rounds.
    assert max(abs(found[k].value - values[k]) for k in found) < 0.1
    assert all(one.solved for one in found.values())


def test_who_takes_part_does_not_change_what_a_client_is() -> None:
    # The bad ones sit the later rounds out: the others' mean rises, their own estimates do not.
    values = np.array([-4.0, -4.0, *[0.8] * 10])
    everybody = groupings(8)
    rest = [make_groups(range(2, 12), 3, np.random.default_rng(n)) for n in range(6)]
    found = estimates(rounds_of(values, [*everybody, *rest]))
    assert [found[k].value for k in (0, 1)] == pytest.approx([-4, -4], abs=1.0)  # the prior
    assert [found[k].value for k in range(2, 12)] == pytest.approx([0.8] * 10, abs=0.3)


def test_solution_and_error_are_those_of_the_conditional_normal_distribution() -> None:
    # The second method: cov(v, y) cov(y)^-1 y, with a matrix of equations and none of clients.
    rounds = rounds_of(centred(2), groupings(5), noise=0.5, seed=3)
    rows, values, noises = [], [], []
    for age, one in enumerate(reversed(rounds)):
        for group, worth in zip(one.groups, one.worth, strict=True):
            rows.append([float(k in group) for k in range(CLIENTS)])
            values.append(CLIENTS * worth)
            noises.append(len(group) / DISCOUNT**age)
    x, y = np.array(rows), np.array(values)
    solved = np.linalg.inv(x @ x.T / RIDGE + np.diag(noises))
    weights = sum(len(one.groups) * DISCOUNT**age for age, one in enumerate(reversed(rounds)))
    variance = y @ solved @ y / weights
    covariance = variance * (np.eye(CLIENTS) - x.T @ solved @ x / RIDGE) / RIDGE
    found = estimates(rounds)
    np.testing.assert_allclose([found[k].value for k in range(12)], x.T @ solved @ y / RIDGE)
    np.testing.assert_allclose([found[k].error for k in range(12)], np.sqrt(np.diag(covariance)))


def test_error_is_as_large_as_what_the_estimate_is_off() -> None:
    off = []
    for seed in range(60):
        values = np.random.default_rng([9, seed]).normal(size=CLIENTS) / math.sqrt(RIDGE) / 3
        values -= values.mean()
        found = estimates(rounds_of(values, groupings(8, seed=seed), noise=1 / 3, seed=seed))
        off += [(found[k].value - values[k]) / found[k].error for k in found]
    # 720 values of deviation near 1; older rounds are no noisier here than younger ones.
    assert 0.75 < math.sqrt(float(np.mean(np.square(off)))) < 1.1


@pytest.mark.parametrize(("size", "rounds"), [(3, 2), (4, 4)])
def test_clients_are_solved_for_only_after_some_rounds(size: int, rounds: int) -> None:
    made = rounds_of(centred(3), groupings(rounds, size), noise=0.1)
    assert not any(one.solved for one in estimates(made[:1]).values())
    assert any(one.solved for one in estimates(made).values())


def test_one_group_alone_is_not_measured_and_its_scale_stays() -> None:
    before = GroupRound(((0, 1, 2), (3, 4, 5)), (0.1, -0.1), 0.7)
    alone = measured({(0, 1, 2): 0.4}, {(0, 1, 2): 3.0}, [before])
    assert alone == GroupRound(((0, 1, 2),), (), 0.7)
    one, two = estimates([before])[0], estimates([before, alone])[0]
    assert two.error < math.inf
    assert one.value > 0  # the group that was worth more
    assert abs(two.value) < abs(one.value)  # a round older, so the prior weighs more
    assert estimates([GroupRound(((0, 1, 2),))]) == {}


def test_credit_of_the_round_is_the_leave_one_out_credit_again(linear: Quadratic) -> None:
    groups = list(groupings(1)[0])
    found = measured(linear.credit(groups), linear.weight(groups), [])
    true = {
        k: Estimate(CLIENTS * value / found.scale, 0.0, True)
        for k, value in enumerate(single(linear))
    }
    alone = linear.credit([(k,) for k in range(CLIENTS)])
    again = credits_of(found, true, dict(enumerate(linear.weights)))
    assert again == pytest.approx({k: alone[(k,)] for k in range(CLIENTS)})


def test_scale_follows_the_credits_down_by_halves() -> None:
    groups: tuple[Group, ...] = ((0, 1, 2), (3, 4, 5))
    weights: dict[Group, float] = dict.fromkeys(groups, 1.0)
    first = measured(dict.fromkeys(groups, 0.2), weights, [])
    # (1 - 1/2) 0.2 a group, over sqrt(3), times six clients.
    assert first.scale == pytest.approx(0.1 / math.sqrt(3) * 6)
    later = measured(dict.fromkeys(groups, 0.0), weights, [first])
    assert later.scale == pytest.approx(first.scale / 2)


@pytest.mark.parametrize("chosen", [3, 5, 20])
def test_agents_find_the_error_in_a_clients_view(chosen: int) -> None:
    variance = Estimate(-1.0, 0.25, True).variance(chosen)
    view = ClientView(
        client=0, rows=1, steps=1, chosen=chosen, standing=-1.0, standing_variance=variance
    )
    assert standing_error(view) == pytest.approx(0.25)
