"""A closed set of sensible decisions, for models that are too small to write one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from strategies.agents.contract import ClientView, Decision, Observation

LABELS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Choice:
    """A decision with a name; the name is its reason too."""

    name: str
    decision: Decision

    @property
    def told(self) -> str:
        """What it does, for a prompt."""
        if self.decision.stop:
            return self.name
        steps = ", ".join(f"{k}: {m}" for k, m in self.decision.steps.items())
        return f"{self.name} (steps by client {steps})"


def choices(seen: Observation, rule: Decision, stop_allowed: bool) -> dict[str, Choice]:
    """List what an agent may choose between.

    Parameters
    ----------
    seen : Observation
        What is known.
    rule : Decision
        What the rule would do.
    stop_allowed : bool
        Whether the run may end here.

    Returns
    -------
    dict
        By label (A, B, ...); no two decide the same. Credit per cost ranks a client that has not
        trained yet between those that helped and those that harmed, by its rows per cost.
    """
    everybody = seen.clients
    ranked = sorted(everybody, key=lambda view: _worth(view, seen), reverse=True)
    half = ranked[: math.ceil(len(ranked) / 2)]
    helped = [view for view in everybody if (view.credit or 0) > 0]
    waited = sorted(everybody, key=lambda view: view.rounds_since, reverse=True)
    plain, double = seen.plain_steps, 2 * seen.plain_steps
    offered = [
        _choice("everybody trains plain steps", everybody, plain, seen),
        _choice("everybody trains double steps", everybody, double, seen),
        _choice("everybody trains half the steps", everybody, plain // 2, seen),
        Choice("the rule decides", rule.model_copy(update={"reason": "the rule decides"})),
        _choice("the half with most credit per cost, plain steps", half, plain, seen),
        _choice("the half with most credit per cost, double steps", half, double, seen),
        _choice("the client with most credit per cost, double steps", ranked[:1], double, seen),
        _choice("those whose credit is above 0, plain steps", helped, plain, seen),
        _choice("the half that waited longest, plain steps", waited[: len(half)], plain, seen),
    ]
    kept: dict[tuple[object, ...], Choice] = {}
    for choice in offered:
        if choice.decision.participants:
            kept.setdefault(tuple(sorted(choice.decision.steps.items())), choice)
    if stop_allowed:
        stop = Decision(participants=(), steps={}, stop=True, reason="stop the run now")
        kept[()] = Choice("stop the run now", stop)
    return dict(zip(LABELS, kept.values(), strict=False))


def _worth(view: ClientView, seen: Observation) -> tuple[float, float]:
    """Rank by credit (or gain) per cost, then by rows per cost.

    Harm counts the more the dearer it is: below 0 the credit is multiplied.
    """
    spend = max(1.0, view.spend(seen.plain_steps))
    known = (view.gain if view.credit is None else view.credit) or 0.0
    return known / spend if known > 0 else known * spend, view.rows / spend


def _choice(name: str, views: Iterable[ClientView], steps: int, seen: Observation) -> Choice:
    chosen = sorted(view.client for view in views)
    bounded = max(seen.min_steps, min(seen.max_steps, steps))
    said = Decision(participants=tuple(chosen), steps=dict.fromkeys(chosen, bounded), reason=name)
    return Choice(name, said)
