"""Agents that weigh what a client gives against what it costs: greedy, UCB and LinUCB.

They learn from the observations alone, so a recorded run's observations, replayed in their order,
give the same agent and the same decisions. No randomness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from core import Settings, selection_size
from strategies.agents import Agent, ClientView, Decision, Observation
from strategies.agents.choosing import Option, best_set, waiting
from strategies.agents.client_features import FEATURES, Features, client_features
from strategies.agents.client_records import Records
from strategies.agents.rewards import (
    benefits,
    improvement,
    spend_worth,
    step_seconds,
    trained_last,
    wait_worth,
)

WINDOW = 2
"""Rounds over which a bandit takes the mean improvement before it stops."""

UNKNOWN = 1.0
"""What a client is taken to give of whose work nothing is known yet, nats: more than any gives."""

RIDGE = 10.0
"""Weight of LinUCB's prior, in observations of a feature at 1."""

MULTIPLES = (0.5, 1.0, 2.0)
"""LinUCB's choice of steps, in plain rounds."""


def _steps(seen: Observation, multiple: float = 1.0) -> int:
    return max(seen.min_steps, min(seen.max_steps, round(multiple * seen.plain_steps)))


def _everybody(seen: Observation) -> Decision:
    """Decide the first round: everybody trains as in plain federated learning."""
    steps = {view.client: _steps(seen) for view in seen.clients}
    return Decision(
        participants=tuple(steps), steps=steps, reason="first round: everybody is tried"
    )


def _while_it_pays(
    decision: Decision, gained: float | None, cost: float, rounds: str = "the last round"
) -> Decision:
    """Turn a decision into a stop if the last rounds improved by less than it would cost."""
    if gained is None or gained >= cost:
        return decision
    reason = f"{rounds} improved by {gained:.5f} nats, the next would cost {cost:.5f}"
    return decision.model_copy(update={"stop": True, "reason": reason})


@dataclass(frozen=True)
class GreedyAgent:
    """Lowest loss per cost: cheap clients whose own model is good.

    In round 1 everybody trains. Then clients are ranked by L_Q, the validation loss of their own
    model, times what a plain round of theirs spends relative to the clients' mean; an unknown L_Q
    comes first, ties go to the lower index. The first ceil(`fraction` K) train the plain steps. It
    stops when the last round improved the best validation loss by less than `agent.price` says
    the chosen clients' circuits are worth.
    """

    fraction: float
    name: str = "greedy"

    def decide(self, observation: Observation) -> Decision:
        """Rank the clients, take the first, or stop where they no longer pay."""
        if observation.round == 1:
            return _everybody(observation)
        steps, clients = _steps(observation), observation.clients
        mean = sum(view.spend(steps) for view in clients) / len(clients)

        def rank(view: ClientView) -> tuple[float, int]:
            if view.loss is None:
                return -math.inf, view.client
            return view.loss * (view.spend(steps) / mean if mean > 0 else 1.0), view.client

        chosen = sorted(clients, key=rank)[: selection_size(len(clients), self.fraction)]
        decision = Decision(
            participants=tuple(sorted(view.client for view in chosen)),
            steps={view.client: steps for view in chosen},
            reason=f"lowest loss per cost: {len(chosen)} of {len(clients)}",
        )
        cost = sum(spend_worth(view, steps, observation) for view in chosen)
        return _while_it_pays(decision, improvement(observation, 1), cost)


def _weigh(options: Sequence[Option], seen: Observation, fraction: float) -> Decision:
    """Choose the best set of options; stop where the last rounds improved by less than it costs.

    A set's value counts what is hoped for; the improvement is what was had. While it pays, the
    nearest to paying trains even if no client's bound does: where all are alike, each one's credit
    beside the others is about nothing, and alone it is not.
    """
    wait = wait_worth(seen)
    chosen = best_set(options, selection_size(len(seen.clients), fraction), wait)
    top = max(chosen, key=lambda option: option.value)
    pays = f"client {top.client} pays most" if top.value > 0 else "no bound pays, nearest"
    decision = Decision(
        participants=tuple(option.client for option in chosen),
        steps={option.client: option.steps for option in chosen},
        reason=f"{len(chosen)} of {len(seen.clients)}: {pays}, {top.value:+.5f} nats",
    )
    cost = sum(option.cost for option in chosen) + wait * waiting(chosen)
    return _while_it_pays(decision, improvement(seen, WINDOW), cost, f"the last {WINDOW} rounds")


def _option(
    view: ClientView, steps: int, given: float, seconds: float, seen: Observation
) -> Option:
    cost = spend_worth(view, steps, seen)
    return Option(view.client, steps, given - cost, cost, steps * seconds, view.chosen)


@dataclass
class UcbAgent:
    """UCB on each client's own record (Garivier and Moulines, arXiv 0805.3415, discounted).

    With n_k the discounted number of rounds a client was judged in, m_k the discounted mean of
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
    records: Records = field(default_factory=Records)
    name: str = "bandit (ucb)"
    _chosen: dict[int, int] = field(default_factory=dict)

    def learn(self, seen: Observation) -> None:
        """Add the last round's benefits to the records."""
        self.records.add(benefits(trained_last(seen, self._chosen)))
        self._chosen = {view.client: view.chosen for view in seen.clients}

    def bound(self, client: int) -> float:
        """Return what a client is taken to give at most, nats."""
        mean, count = self.records.mean(client), self.records.count(client)
        if mean is None:
            return UNKNOWN
        spread = math.sqrt(math.log1p(self.records.total) / count)
        return mean + self.exploration * self.records.scale * spread

    def decide(self, observation: Observation) -> Decision:
        """Learn from the last round, then choose the set that promises most."""
        self.learn(observation)
        if observation.round == 1:
            return _everybody(observation)
        steps, pace = _steps(observation), step_seconds(observation)
        options = [
            _option(view, steps, self.bound(view.client), pace[view.client], observation)
            for view in observation.clients
        ]
        return _weigh(options, observation, self.fraction)


@dataclass
class LinUcbAgent:
    """LinUCB (Li et al., arXiv 1003.0146) with one linear model that all clients share.

    The model predicts a client's benefit, in units of s, how large benefits were lately, from
    `client_features` x of the client with so many steps: its own record's mean r and a linear
    correction, r + x' theta. theta is the ridge solution A^-1 X'(y - r) with A = X'X + `RIDGE` I:
    before anything is known of the features, the record alone speaks. With ``exploration`` the
    width, a client with so many steps is taken to give at most

        s (r + x' theta + exploration sqrt(x' A^-1 x))

    less what its circuits and its waiting cost. The steps are 0.5, 1 or 2 plain rounds, whichever
    is worth most. Everybody trains in round 1; choice and stop are those of `UcbAgent`.
    """

    fraction: float
    exploration: float
    records: Records = field(default_factory=Records)
    name: str = "bandit (linucb)"
    gram: npt.NDArray[np.float64] = field(default_factory=lambda: RIDGE * np.eye(len(FEATURES)))
    moment: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(FEATURES)))
    _chosen: dict[int, int] = field(default_factory=dict)
    _asked: dict[int, Features] = field(default_factory=dict)

    def learn(self, seen: Observation) -> None:
        """Regress the last round's benefits on what was known when it was decided."""
        views = trained_last(seen, self._chosen)
        self._chosen = {view.client: view.chosen for view in seen.clients}
        found = benefits(views)
        self.records.add(found)
        if self.records.scale > 0:
            for view in views:
                if view.client in found and view.client in self._asked:
                    asked = self._asked[view.client]
                    row = asked.row(view.steps)
                    rest = found[view.client] / self.records.scale - asked.record
                    self.gram += np.outer(row, row)
                    self.moment += rest * row
        self._asked = client_features(seen, self.records)

    def decide(self, observation: Observation) -> Decision:
        """Learn from the last round, then choose the set and the steps that promise most."""
        self.learn(observation)
        if observation.round == 1:
            return _everybody(observation)
        return _weigh(self._options(observation), observation, self.fraction)

    def _options(self, seen: Observation) -> list[Option]:
        inverse = np.linalg.inv(self.gram)
        theta, pace = inverse @ self.moment, step_seconds(seen)
        options = []
        for view in seen.clients:
            asked = self._asked[view.client]
            if not self.records.scale:
                options.append(_option(view, _steps(seen), UNKNOWN, pace[view.client], seen))
                continue
            for steps in sorted({_steps(seen, multiple) for multiple in MULTIPLES}):
                row = asked.row(steps)
                width = self.exploration * math.sqrt(row @ inverse @ row)
                given = self.records.scale * (asked.record + float(row @ theta) + width)
                options.append(_option(view, steps, given, pace[view.client], seen))
        return options


def build_bandit(settings: Settings) -> Agent:
    """Build greedy or one of the bandits."""
    agent = settings.agent
    if agent.kind == "greedy":
        return GreedyAgent(agent.fraction)
    kind = UcbAgent if agent.bandit == "ucb" else LinUcbAgent
    return kind(agent.fraction, agent.exploration)
