"""Frugal: each round the cheapest clients that together look like everybody."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from core import Settings
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.client_value import everybody, plain_steps
from strategies.decisions.harmless import (
    class_shares,
    counted_rows,
    distrusted,
    overdue,
    shares_of,
    variation,
)

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
        chosen = with_overdue(cheapest_mix(trusted, steps), observation.clients, harmful)
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
    counts = {view.client: counted_rows(view) for view in left}
    held, rows, now = list[list[float]](), 0, 2.0
    while left and now > MIX:
        apart = [distance([*held, counts[v.client]], rows + weight(v), goal, total) for v in left]
        ranks = [_rank(now - d, view, steps) for d, view in zip(apart, left, strict=True)]
        place = max(range(len(left)), key=ranks.__getitem__)  # of equal ones the first
        best, now = left.pop(place), apart[place]
        chosen.append(best)
        held.append(counts[best.client])
        rows += weight(best)
    return chosen


def with_overdue(
    chosen: Sequence[ClientView], clients: Sequence[ClientView], harmful: Collection[int]
) -> list[ClientView]:
    """Add those that have rested as long as `harmless` lets them."""
    found, inside = list(chosen), {view.client for view in chosen}
    while True:
        left = [view for view in clients if view.client not in inside]
        late = overdue(left, len(found), len(clients), harmful)
        if not late:
            return found
        found.append(max(late, key=lambda view: (view.rounds_since, -view.client)))
        inside.add(found[-1].client)


def distance(
    counts: Sequence[Sequence[float]], rows: int, goal: Sequence[float], total: int
) -> float:
    """Return how far a round is from everybody: of classes' shares, and of what rows it lacks.

    The sum of the total variation between the classes' shares and of the share of rows below
    `ROWS`, scaled so that lacking all of them is 1.

    Parameters
    ----------
    counts : sequence of sequence of float
        The participants' rows of each class (`counted_rows`), one or more.
    rows, total : int
        Rows that they count for, and those of everybody.
    goal : sequence of float
        Each class's share of everybody's rows.
    """
    share = rows / total if total else 1.0
    return variation(shares_of(counts), goal) + max(0.0, 1 - share / ROWS)


def weight(view: ClientView) -> int:
    """Return the rows that a client counts for in the average."""
    return view.weight or view.rows


def _rank(gain: float, view: ClientView, steps: int) -> float:
    """Return what a client brings per price, dearer by what it brings away."""
    price = max(view.cost(steps), 1e-9) / (1 + view.rounds_since)
    return gain / price if gain > 0 else gain * price


AGENT = FrugalAgent
