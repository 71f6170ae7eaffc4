"""Bandits that weigh what a client gives against what it costs: UCB and LinUCB.

They learn from the observations alone, so a recorded run's observations, replayed in their order,
give the same agent and the same decisions. No randomness.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from core import Settings, selection_size
from strategies.decisions import Agent, ClientView, Decision, Observation
from strategies.decisions.client_value import (
    FEATURES,
    BenefitHistory,
    Features,
    benefits,
    circuit_cost,
    client_features,
    everybody,
    improvement,
    plain_steps,
    step_seconds,
    trained_last,
    waiting_cost,
    while_it_pays,
)

WINDOW = 2
"""Rounds over which a bandit takes the mean improvement before it stops."""

UNKNOWN = 1.0
"""What a client is taken to give of whose work nothing is known yet, nats: more than any gives."""

RIDGE = 10.0
"""Weight of LinUCB's prior, in observations of a feature at 1."""

MOST_DEADLINES, ROUNDING = 50, 1e-9
"""Times of the slowest that are looked at in full, and by how much sums may round."""

MULTIPLES = (0.5, 1.0, 2.0)
"""LinUCB's choice of steps, in plain rounds."""


@dataclass(frozen=True)
class Option:
    """One client with one number of steps.

    Attributes
    ----------
    client, steps : int
        Who, and how many optimizer steps.
    value : float
        What it is taken to give, less what its circuits cost, nats.
    cost : float
        What its circuits cost, nats.
    seconds : float
        How long it works.
    tried : int
        Rounds that the client has trained in: of equal values the less tried goes first.
    """

    client: int
    steps: int
    value: float
    cost: float = 0.0
    seconds: float = 0.0
    tried: int = 0

    @property
    def rank(self) -> tuple[float, int, float, int, int]:
        """Order of options by value; of equal ones the less tried, quicker and first goes first."""
        return -self.value, self.tried, self.seconds, self.client, self.steps


def best_set(options: Sequence[Option], most: int, wait: float = 0.0) -> tuple[Option, ...]:
    """Choose the set of greatest value less the cost of its waiting.

    A set's value is the sum of its options' values less `wait` for each second that one of them
    waits for the slowest. Were the slowest one's time D known, each option had a value of its own,
    ``value - wait (D - seconds)``, and the best set were each client's best option, those above 0,
    at most so many. So this is done for every D that can be best, and the best of these is best of
    all.

    Parameters
    ----------
    options : sequence of Option
        At least one; several a client where steps are to be chosen.
    most : int
        Most participants, at least 1.
    wait : float
        Nats a second of waiting.

    Returns
    -------
    tuple of Option
        By client, one a client at most; where no option pays its cost, the one nearest to it.
    """
    ranked = sorted(options, key=lambda option: option.rank)
    deadlines = best_deadlines(options, most, wait) if wait else [math.inf]
    best: tuple[Option, ...] = (ranked[0],)
    best_value = 0.0
    for deadline in deadlines:
        chosen, value = _best_until(deadline, ranked, most, wait)
        if value > best_value:
            best, best_value = chosen, value
    return tuple(sorted(best, key=lambda option: option.client))


def best_deadlines(options: Sequence[Option], most: int, wait: float) -> list[float]:
    """Return the slowest one's times that can be best, ascending: of ten thousand a few.

    With D the slowest one's time, an option's value is ``reach - wait D`` with
    ``reach = value + wait seconds``, whatever D is. So one sweep over D, in which options come in
    by their seconds, finds the sum of the greatest values for every D.

    Parameters
    ----------
    options, most, wait
        As of `best_set`, with a `wait` above 0.
    """
    reach = [option.value + wait * option.seconds for option in options]
    order = sorted(range(len(options)), key=lambda i: -reach[i])
    falling = [-reach[i] for i in order]
    place = {i: at for at, i in enumerate(order)}
    sums, chosen = _TopSums(len(options)), dict[int, int]()
    found: list[tuple[float, float]] = []
    by_seconds = sorted(range(len(options)), key=lambda i: options[i].seconds)
    for deadline, group in groupby(by_seconds, key=lambda i: options[i].seconds):
        for i in group:
            before = chosen.get(options[i].client)
            if before is not None and reach[before] >= reach[i]:
                continue
            if before is not None:
                sums.add(place[before], -1, -reach[before])
            sums.add(place[i], 1, reach[i])
            chosen[options[i].client] = i
        paying = sums.count(bisect_left(falling, -wait * deadline))
        if taken := min(most, paying):
            found.append((wait * deadline * taken - sums.greatest(taken), deadline))
    if not found:
        return []
    least = min(found)[0] + ROUNDING * (1.0 + max(map(abs, reach)) * most)
    near = sorted(one for one in found if one[0] <= least)
    return sorted(deadline for _, deadline in near[:MOST_DEADLINES])


class _TopSums:
    """Sums of the greatest of some numbers, by their places in falling order (a Fenwick tree)."""

    def __init__(self, size: int) -> None:
        self.counts, self.sums = [0] * (size + 1), [0.0] * (size + 1)

    def add(self, place: int, count: int, number: float) -> None:
        """Put a number in its place, or take it out."""
        at = place + 1
        while at < len(self.counts):
            self.counts[at] += count
            self.sums[at] += number
            at += at & -at

    def count(self, places: int) -> int:
        """Return how many numbers are in the first places."""
        found = 0
        while places:
            found += self.counts[places]
            places &= places - 1
        return found

    def greatest(self, taken: int) -> float:
        """Return the sum of so many of the greatest numbers."""
        at, found = 0, 0.0
        step = 1 << len(self.counts).bit_length()
        while step := step >> 1:
            if at + step < len(self.counts) and self.counts[at + step] <= taken:
                at += step
                taken -= self.counts[at]
                found += self.sums[at]
        return found


def _best_until(
    deadline: float, ranked: Sequence[Option], most: int, wait: float
) -> tuple[tuple[Option, ...], float]:
    """Return the best set of those done by a deadline, and its value if all wait until then."""
    by_client: dict[int, tuple[float, Option]] = {}
    for option in ranked:
        value = option.value - (wait * (deadline - option.seconds) if wait else 0.0)
        known, _ = by_client.get(option.client, (0.0, None))
        if option.seconds <= deadline and value > known:
            by_client[option.client] = (value, option)
    best = sorted(by_client.values(), key=lambda pair: (-pair[0], *pair[1].rank))[:most]
    return tuple(option for _, option in best), sum(value for value, _ in best)


def waiting(chosen: Sequence[Option]) -> float:
    """Return the seconds that a set's clients together wait for the slowest of them."""
    slowest = max(option.seconds for option in chosen)
    return sum(slowest - option.seconds for option in chosen)


def _best_decision(options: Sequence[Option], seen: Observation, fraction: float) -> Decision:
    """Choose the best set of options; stop where the last rounds improved by less than it costs.

    A set's value is an upper bound; the improvement is what was had. While it pays, the nearest to
    paying trains even if no client's bound does: where all are alike, each one's credit beside the
    others is about nothing, and alone it is not.
    """
    wait = waiting_cost(seen)
    chosen = best_set(options, selection_size(len(seen.clients), fraction), wait)
    top = max(chosen, key=lambda option: option.value)
    pays = f"client {top.client} pays most" if top.value > 0 else "no bound pays, nearest"
    reason = f"{len(chosen)} of {len(seen.clients)}: {pays}, {top.value:+.5f} nats"
    decision = Decision.to_train({option.client: option.steps for option in chosen}, reason)
    cost = sum(option.cost for option in chosen) + wait * waiting(chosen)
    return while_it_pays(decision, improvement(seen, WINDOW), cost, f"the last {WINDOW} rounds")


def _option(
    view: ClientView, steps: int, given: float, seconds: float, seen: Observation
) -> Option:
    cost = circuit_cost(view, steps, seen)
    return Option(view.client, steps, given - cost, cost, steps * seconds, view.chosen)


@dataclass
class UcbAgent:
    """UCB on each client's own record (Garivier and Moulines, arXiv 0805.3415, discounted).

    With n_k the discounted number of rounds a client was evaluated in, m_k the discounted mean of
    its benefit (nats), N = sum of all n_k and s how large benefits were lately, a client is taken
    to give at most

        m_k + exploration s sqrt(ln(1 + N) / n_k)

    less what its circuits and its waiting cost. Benefits shrink as the loss falls: the discount
    forgets the large ones of the first rounds, and the width follows s down. They are not divided
    by a round's own scale, which would make a lone participant's benefit 1 whatever it gave.
    Everybody trains in round 1; then the best set of at most ceil(`fraction` K) with the plain
    steps, until the last rounds improved by less than that set would cost.
    """

    fraction: float
    exploration: float
    history: BenefitHistory = field(default_factory=BenefitHistory)
    name: str = "bandit (ucb)"
    _chosen: dict[int, int] = field(default_factory=dict)

    def learn(self, seen: Observation) -> None:
        """Add the last round's benefits to the history."""
        self.history.add(benefits(trained_last(seen, self._chosen)))
        self._chosen = {view.client: view.chosen for view in seen.clients}

    def bound(self, client: int) -> float:
        """Return what a client is taken to give at most, nats."""
        mean, count = self.history.mean(client), self.history.count(client)
        if mean is None:
            return UNKNOWN
        spread = math.sqrt(math.log1p(self.history.total) / count)
        return mean + self.exploration * self.history.scale * spread

    def decide(self, observation: Observation) -> Decision:
        """Learn from the last round, then choose the set that promises most."""
        self.learn(observation)
        if observation.round == 1:
            return everybody(observation)
        steps, pace = plain_steps(observation), step_seconds(observation)
        options = [
            _option(view, steps, self.bound(view.client), pace[view.client], observation)
            for view in observation.clients
        ]
        return _best_decision(options, observation, self.fraction)


@dataclass
class LinUcbAgent:
    """LinUCB (Li et al., arXiv 1003.0146) with one linear model that all clients share.

    The model predicts a client's benefit, in units of s, how large benefits were lately, from
    `client_features` x of the client with so many steps: the mean r of its own benefits and a
    linear correction, r + x' theta. theta is the ridge solution A^-1 X'(y - r) with
    A = X'X + `RIDGE` I: before anything is known of the features, the mean alone counts. With
    ``exploration`` the width, a client with so many steps is taken to give at most

        s (r + x' theta + exploration sqrt(x' A^-1 x))

    less what its circuits and its waiting cost. The steps are 0.5, 1 or 2 plain rounds, whichever
    pays most. Everybody trains in round 1; choice and stop are those of `UcbAgent`.
    """

    fraction: float
    exploration: float
    history: BenefitHistory = field(default_factory=BenefitHistory)
    name: str = "bandit (linucb)"
    gram: npt.NDArray[np.float64] = field(default_factory=lambda: RIDGE * np.eye(FEATURES))
    moment: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(FEATURES))
    _chosen: dict[int, int] = field(default_factory=dict)
    _features: dict[int, Features] = field(default_factory=dict)

    def learn(self, seen: Observation) -> None:
        """Regress the last round's benefits on what was known when it was decided."""
        views = trained_last(seen, self._chosen)
        self._chosen = {view.client: view.chosen for view in seen.clients}
        found = benefits(views)
        self.history.add(found)
        if self.history.scale > 0:
            for view in views:
                if view.client in found and view.client in self._features:
                    features = self._features[view.client]
                    row = features.row(view.steps)
                    self.gram += np.outer(row, row)
                    rest = found[view.client] / self.history.scale - features.mean_benefit
                    self.moment += rest * row
        self._features = client_features(seen, self.history)

    def decide(self, observation: Observation) -> Decision:
        """Learn from the last round, then choose the set and the steps that promise most."""
        self.learn(observation)
        if observation.round == 1:
            return everybody(observation)
        return _best_decision(self._options(observation), observation, self.fraction)

    def _options(self, seen: Observation) -> list[Option]:
        inverse = np.linalg.inv(self.gram)
        theta, pace, scale = inverse @ self.moment, step_seconds(seen), self.history.scale
        multiples = MULTIPLES if scale else (1.0,)
        options = []
        for view in seen.clients:
            features = self._features[view.client]
            for steps in sorted({plain_steps(seen, multiple) for multiple in multiples}):
                row = features.row(steps)
                width = self.exploration * math.sqrt(row @ inverse @ row)
                bound = scale * (features.mean_benefit + float(row @ theta) + width)
                given = bound if scale else UNKNOWN
                options.append(_option(view, steps, given, pace[view.client], seen))
        return options


class Bandit:
    """One of the two bandits, as `agent.bandit` says."""

    uses = (
        "agent.fraction",
        "agent.price",
        "agent.idle_price",
        "agent.bandit",
        "agent.exploration",
    )
    may_stop = sees_credit = needs_credit = True

    @classmethod
    def from_settings(cls, settings: Settings) -> Agent:
        """Build the agent."""
        agent = settings.agent
        kind = UcbAgent if agent.bandit == "ucb" else LinUcbAgent
        return kind(agent.fraction, agent.exploration)


AGENT = Bandit
