"""Credit of single clients from what sums of groups were worth: least squares over rounds, pure.

Under secure aggregation the server has the sum of each group's updates and no single one. It can
still leave one *group* out (`strategies.credit.credits`). With n participants of shares p_i of the
weights, the mean update D and a member's update d_i, the aggregate without client i moves by
p_i / (1 - p_i) (D - d_i). To first order in this, with g the gradient of the loss L at the
aggregate,

    credit_i = p_i / (1 - p_i) g'(D - d_i)

and a group G of share P, whose mean update is that of its members by weight, likewise has

    (1 - P) credit_G = P g'(D - d_G) = sum over its members of (1 - p_i) credit_i

So the left side, which the server measures, is a sum of one number a member. The second order,
positive for groups and clients alike, adds up over members whose updates are uncorrelated, up to a
factor (1 - p_i) / (1 - P). Groups change from round to round (`strategies.grouping`), which tells
the members apart.

What is solved for is v_i = n (1 - p_i) credit_i in units of how large these were lately: it
measures the client, not how many took part or how far the loss has fallen. It is relative to the
mean over the round's participants, which differs between rounds: a row of the regression is 1 for
a group's members, less the group's size times what the participants' mean differs from the mean of
all. With rows x, sizes m and discounts f the estimate is that of a normal prior of variance
sigma^2 / `RIDGE` and noise of variance sigma^2 m / f (ridge regression; Hoerl and Kennard 1970),

    A = RIDGE I + sum f / m x x'    v = A^-1 sum f / m x y    cov(v) = sigma^2 A^-1

with sigma^2 of the greatest marginal likelihood: (sum f / m y^2 - v' A v) / sum f.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.credit import weights_squared
from strategies.decisions import ClientView
from strategies.grouping import Group

DISCOUNT = 0.85
"""Weight of a round beside the next one: a client's updates change as the model learns."""

RIDGE = 0.1
"""Precision of the prior, in rounds of a group of one's own."""

SCALE_RATE = 0.5
"""Weight of the last round in the mean size of credit, which falls with the loss."""

SOLVED = 0.5
"""Share of its prior variance below which a client's estimate counts."""

MOST_ROUNDS = 40
"""Rounds that are remembered: earlier ones weigh less than 0.002."""


@dataclass(frozen=True)
class GroupRound:
    """A round's groups and what each was worth.

    Attributes
    ----------
    groups : tuple of tuple of int
        The groups whose sums were aggregated.
    worth : tuple of float
        (1 - P) times each group's credit, nats; none where it was not measured: one group alone has
        no other to be compared with.
    scale : float
        How large n times a member's part of it was lately, nats; 0: not known yet.
    """

    groups: tuple[Group, ...]
    worth: tuple[float, ...] = ()
    scale: float = 0.0

    @property
    def clients(self) -> tuple[int, ...]:
        """Clients of all groups."""
        return tuple(client for group in self.groups for client in group)


@dataclass(frozen=True)
class Estimate:
    """A client's v with its standard error, in units of the scale.

    Attributes
    ----------
    value, error : float
        The estimate and the square root of its posterior variance.
    solved : bool
        Whether the rounds say enough of this client alone.
    """

    value: float
    error: float
    solved: bool

    def variance(self, rounds: int) -> float:
        """Return the variance of credits whose mean over so many rounds has this error.

        It is what `ClientView.standing_variance` says of credits that are seen one by one, so that
        `standing_error` finds the error again.
        """
        squared = weights_squared(rounds)
        return self.error**2 * (1 - squared) / squared


def measured(
    credits: Mapping[Group, float],
    weights: Mapping[Group, float],
    past: Sequence[GroupRound],
) -> GroupRound:
    """Return a round from the credit of its groups.

    Parameters
    ----------
    credits : mapping
        Leave-one-out credit of each aggregated group, nats.
    weights : mapping
        What each group weighs in the aggregate: the sum of its members' weights.
    past : sequence of GroupRound
        The rounds before.
    """
    groups = tuple(sorted(credits))
    before = past[-1].scale if past else 0.0
    if len(groups) < 2:
        return GroupRound(groups, scale=before)
    sums = np.array([weights[group] for group in groups])
    worth = (1 - sums / sums.sum()) * np.array([credits[group] for group in groups])
    sizes = np.array([len(group) for group in groups])
    # Sizes of sums of m independent parts grow with the root of m.
    now = float(np.mean(np.abs(worth) / np.sqrt(sizes))) * int(sizes.sum())
    scale = before + SCALE_RATE * (now - before) if before else now
    return GroupRound(groups, tuple(worth.tolist()), scale)


def estimates(rounds: Sequence[GroupRound]) -> dict[int, Estimate]:
    """Solve for every client's v over rounds; see the module for the model.

    Parameters
    ----------
    rounds : sequence of GroupRound
        The rounds so far, the last one last.

    Returns
    -------
    dict
        By client, all that were in a measured round; none before the first.
    """
    known = [(age, one) for age, one in enumerate(reversed(rounds)) if one.worth and one.scale]
    clients = sorted({client for _, one in known for client in one.clients})
    information, moment = RIDGE * np.eye(len(clients)), np.zeros(len(clients))
    squares, count = 0.0, 0.0
    for age, one in known:
        rows, values, precisions = _equations(one, clients, DISCOUNT**age)
        information += rows.T @ (precisions[:, None] * rows)
        moment += rows.T @ (precisions * values)
        squares += float(precisions @ values**2)
        count += len(rows) * DISCOUNT**age
    if not known:
        return {}
    inverse = np.linalg.inv(information)
    found, spread = inverse @ moment, np.diag(inverse)
    noise = max(0.0, squares - float(moment @ found)) / count
    return {
        client: Estimate(float(value), math.sqrt(noise * part), bool(RIDGE * part < SOLVED))
        for client, value, part in zip(clients, found, spread, strict=True)
    }


def _equations(
    one: GroupRound, clients: Sequence[int], discount: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a round's rows (groups, clients), its values and their precisions."""
    place = {client: i for i, client in enumerate(clients)}
    members = np.zeros((len(one.groups), len(clients)))
    for row, group in zip(members, one.groups, strict=True):
        row[[place[client] for client in group]] = 1.0
    sizes, here = members.sum(axis=1), members.sum(axis=0)
    rows = members - np.outer(sizes, here / here.sum() - 1 / len(clients))
    values = int(here.sum()) * np.array(one.worth) / one.scale
    return rows, values, discount / sizes


def credits_of(
    one: GroupRound, found: Mapping[int, Estimate], weights: Mapping[int, float]
) -> dict[int, float]:
    """Return the estimated credit of a round's participants, nats.

    Parameters
    ----------
    one : GroupRound
        The round.
    found : mapping
        The estimates after it.
    weights : mapping
        What each client weighs in its group's mean.
    """
    total = sum(weights[client] for client in one.clients)
    rest = {client: len(one.clients) * (1 - weights[client] / total) for client in one.clients}
    return {
        client: found[client].value * one.scale / rest[client]
        for client in one.clients
        if client in found and rest[client] > 0
    }


def credited_views(
    views: Mapping[int, ClientView],
    rounds: Sequence[GroupRound],
    weights: Mapping[int, float],
) -> dict[int, ClientView]:
    """Return what is known of the clients after the last of the rounds.

    `credit` of a participant is the estimate for this round, from the first measured round on: a
    little of its group's at first. `standing` and its variance are there once a client is solved
    for, and change for who sat the round out too. `gain` is not known of single clients.

    Parameters
    ----------
    views : mapping
        The clients' views; `chosen` counts the last round.
    rounds : sequence of GroupRound
        The rounds so far.
    weights : mapping
        What each client weighs in its group's mean.
    """
    found = estimates(rounds)
    now = credits_of(rounds[-1], found, weights)
    changed = {}
    for client, view in views.items():
        one = found.get(client)
        solved = one is not None and one.solved
        changed[client] = view.model_copy(
            update={
                "credit": now.get(client, view.credit),
                "standing": one.value if one and solved else None,
                "standing_variance": one.variance(max(1, view.chosen)) if one and solved else None,
            }
        )
    return changed
