"""Oort: clients whose rows are hard and who are quick, and some that are new."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from core import Settings, derive_seed, selection_size
from strategies.decisions import ClientView, Decision, Observation
from strategies.decisions.client_value import step_seconds

EXPLORED, EXPLORED_DECAY, EXPLORED_LEAST = 0.9, 0.98, 0.2
"""Share of a round's places for clients that have not trained: first, a round's factor, least."""

PENALTY = 2.0
"""Exponent of the preferred time over a slower client's time."""

STALENESS = 0.1
"""Weight of ln(round) / last round in a client's utility."""

CUTOFF, CLIPPED = 0.95, 0.95
"""Share of the last place's utility that still may be drawn; quantile that utilities are cut to."""

PACER_ROUNDS, PACER_STEP = 20, 0.1
"""Rounds that the pacer compares, and the share of the clients that it lets in more."""


@dataclass
class OortAgent:
    """Oort's guided participant selection (Lai et al., OSDI 2021, arXiv 2010.06081).

    A client's statistical utility is rows times the root mean square of its rows' losses. Sites
    report the mean validation loss of their last model and no row's, so it is rows times that
    mean: a lower bound. Its utility adds ``sqrt(0.1 ln R / L)``, with R the round and L the round
    it last trained in, times the largest utility, and is cut at the 95 % quantile. A client that
    takes longer than the preferred time T loses the factor (T / its time)^2.

    A share of the places, 0.9 at first, times 0.98 a round, at least 0.2, is for clients that
    have not trained, drawn by chance, since their pace is not known yet; the rest is drawn, with
    probabilities by utility, among those whose utility reaches 95 % of what the last place would
    need. T is a quantile of the clients' times, the `fraction` first; Oort's pacer raises it by a
    tenth of the clients where the utility that was trained fell over twice 20 rounds. Oort's limit
    on how often a client is chosen and its choice of test data are for thousands of phones, and
    are left out.
    """

    fraction: float
    seed: int
    name: str = "oort"
    uses: ClassVar[tuple[str, ...]] = ("agent.fraction",)
    may_stop: ClassVar[bool] = False
    fixed_steps: ClassVar[bool] = True
    gained: list[float] = field(default_factory=list)
    lets_in: float = 0.0

    @classmethod
    def from_settings(cls, settings: Settings) -> OortAgent:
        """Build the agent."""
        return cls(settings.agent.fraction, settings.run.seed)

    def decide(self, observation: Observation) -> Decision:
        """Draw the round's participants; the draw depends on seed, round and the record only."""
        rng = np.random.default_rng(derive_seed(self.seed, "agent", observation.round))
        views = {view.client: view for view in observation.clients}
        known = self._utilities(observation)
        most = selection_size(len(views), self.fraction)
        new = [client for client in views if client not in known]
        explored = max(EXPLORED_LEAST, EXPLORED * EXPLORED_DECAY ** (observation.round - 1))
        places = min(len(new), max(math.ceil(explored * most), most - len(known))) if new else 0
        chosen = _drawn(known, most - places, rng) if most > places else []
        self.gained.append(sum(known[client] for client in chosen))
        chosen += [int(k) for k in rng.permutation(new)[:places]]
        steps = {client: views[client].steps for client in sorted(chosen)}
        reason = f"{len(chosen) - places} by utility, {places} that are new"
        return Decision.to_train(steps, reason)

    def _utilities(self, seen: Observation) -> dict[int, float]:
        """Return the utility of every client that has trained."""
        trained = [view for view in seen.clients if view.loss is not None and view.chosen]
        if not trained:
            return {}
        base = {view.client: view.rows * (view.loss or 0.0) for view in trained}
        ceiling = float(np.quantile(list(base.values()), CLIPPED))
        preferred, seconds = self._preferred_time(seen), step_seconds(seen)
        return {
            view.client: (min(base[view.client], ceiling) + ceiling * _stale(view, seen.round))
            * _system(seconds[view.client] * view.steps, preferred)
            for view in trained
        }

    def _preferred_time(self, seen: Observation) -> float:
        """Return T, which the pacer raises where clients give less than they did."""
        done = len(self.gained)
        if done >= 2 * PACER_ROUNDS and done % PACER_ROUNDS == 0:
            last, before = (
                self.gained[-PACER_ROUNDS:],
                self.gained[-2 * PACER_ROUNDS : -PACER_ROUNDS],
            )
            self.lets_in += PACER_STEP if sum(last) < sum(before) else 0.0
        pace = step_seconds(seen)
        times = [pace[view.client] * view.steps for view in seen.clients]
        return float(np.quantile(times, min(1.0, self.fraction + self.lets_in)))


def _stale(view: ClientView, now: int) -> float:
    """Return what a client's utility gains, as a share, for having trained long ago."""
    last = max(1, now - 1 - view.rounds_since)
    return math.sqrt(STALENESS * math.log(max(1, now)) / last)


def _system(seconds: float, preferred: float) -> float:
    """Return the factor of a client's time: 1 up to the preferred time."""
    return (preferred / seconds) ** PENALTY if seconds > preferred > 0 else 1.0


def _drawn(utility: Mapping[int, float], places: int, rng: np.random.Generator) -> list[int]:
    """Draw so many clients by utility, among those near or above the last place's."""
    ranked: Sequence[int] = sorted(utility, key=lambda client: (-utility[client], client))
    if not ranked or places <= 0:
        return []
    last = utility[ranked[min(places, len(ranked)) - 1]]
    near = [client for client in ranked if utility[client] >= CUTOFF * last]
    weights = np.array([utility[client] for client in near]) + 1e-12
    size = min(places, len(near))
    drawn = rng.choice(len(near), size=size, replace=False, p=weights / weights.sum())
    return [near[i] for i in drawn]


AGENT = OortAgent
