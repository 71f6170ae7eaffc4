"""Frugal: each round the cheapest clients that together look like everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from core import Settings
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.client_value import everybody, plain_steps
from strategies.decisions.harmless import class_shares, distrusted, overdue, variation

MIX = 0.05
"""Most that the classes' shares of a round may differ from everybody's: total variation."""

ROWS = 0.5
"""Least share of the rows that a round trains on, as they count in the average."""


@dataclass(frozen=True)
class FrugalAgent:
    """The cheapest clients that together hold the classes as everybody does, in turn.

    An average of models moves as far with three clients as with ten: what a round needs is that the
    participants' rows are mixed like everybody's, not that they are many. In round 1 everybody
    trains. Then clients are added one by one, each time the one that brings the round nearest to
    everybody per circuit price, until the classes' shares differ by at most `MIX` in total
    variation and `ROWS` of the rows take part. The price of a client is divided by the rounds since
    it trained, so that dear ones come less often and nobody is forgotten. Who is shown to do harm
    (`distrusted`) is left out; without credit nobody is. Steps are the plain ones.
    """

    name: str = "frugal"
    may_stop: ClassVar[bool] = False
    sees_credit: ClassVar[bool] = True
    fixed_steps: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, settings: Settings) -> FrugalAgent:
        """Build the agent."""
        return cls()

    def decide(self, observation: Observation) -> Decision:
        """Choose the round's participants."""
        if observation.round == 1:
            return everybody(observation)
        harmful = {view.client for view in distrusted(observation.clients)}
        trusted = [view for view in observation.clients if view.client not in harmful]
        steps = plain_steps(observation)
        chosen = with_overdue(cheapest_mix(trusted, steps), observation.clients)
        reason = f"{len(chosen)} of {len(observation.clients)} are mixed like everybody"
        if harmful:
            reason += f"; {len(harmful)} shown to do harm"
        return Decision.to_train(dict.fromkeys(sorted(v.client for v in chosen), steps), reason)


def cheapest_mix(clients: Sequence[ClientView], steps: int) -> list[ClientView]:
    """Choose clients whose rows are mixed like those of all, one by one, by price.

    Parameters
    ----------
    clients : sequence of ClientView
        At least one.
    steps : int
        Steps of a participant: they are part of its price.

    Returns
    -------
    list of ClientView
        In the order in which they were chosen.
    """
    goal, total = class_shares(clients), sum(weight(view) for view in clients)
    chosen: list[ClientView] = []
    left = sorted(clients, key=lambda view: view.client)
    now = distance(chosen, goal, total)
    while left and now > MIX:
        found = [
            (_rank(now - distance([*chosen, view], goal, total), view, steps), view)
            for view in left
        ]
        _, best = max(found, key=lambda pair: (pair[0], -pair[1].client))
        chosen.append(best)
        left.remove(best)
        now = distance(chosen, goal, total)
    return chosen


def with_overdue(chosen: Sequence[ClientView], clients: Sequence[ClientView]) -> list[ClientView]:
    """Add those that have rested as long as `harmless` lets them."""
    found = list(chosen)
    while True:
        left = [view for view in clients if view not in found]
        late = overdue(left, len(found), clients)
        if not late:
            return found
        found.append(max(late, key=lambda view: (view.rounds_since, -view.client)))


def distance(chosen: Sequence[ClientView], goal: Sequence[float], total: float) -> float:
    """Return how far a round is from everybody: of classes' shares, and of what rows it lacks.

    The sum of the total variation between the classes' shares and of the share of rows below
    `ROWS`, scaled so that lacking all of them is 1.
    """
    if not chosen:
        return 2.0
    rows = sum(weight(view) for view in chosen) / total if total else 1.0
    return variation(class_shares(chosen), goal) + max(0.0, 1 - rows / ROWS)


def weight(view: ClientView) -> int:
    """Return the rows that a client counts for in the average."""
    return view.weight or view.rows


def _rank(gain: float, view: ClientView, steps: int) -> float:
    """Return what a client brings per price, dearer by what it brings away."""
    price = max(view.cost(steps), 1e-9) / (1 + view.rounds_since)
    return gain / price if gain > 0 else gain * price


AGENT = FrugalAgent
