"""The one place that asks for a decision and bounds it, whoever makes it."""

from __future__ import annotations

from collections.abc import Mapping

from core import Settings
from strategies.agents import Agent, ClientView, Decision, Observation
from strategies.agents.budget import budgets, within
from strategies.agents.termination import stop_reason

OVERRULED = "the run's limits stop here instead"


def decide(
    agent: Agent, seen: Observation, settings: Settings
) -> tuple[Decision, list[str], Agent | None]:
    """Ask the agent for a round's decision and bound it.

    Returns
    -------
    tuple
        The bounded decision, a sentence for each change, and who was asked: nobody, if no client
        is left to choose from or the run's limits end it whatever an agent says.
    """
    if not seen.clients:
        return _stop("the budget of every client is spent"), [], None
    reason = stop_reason(seen, settings)
    if reason:
        return _stop(reason), [], None
    decision, notes = guard(agent.decide(seen), seen, settings)
    return decision, notes, agent


def guard(decision: Decision, seen: Observation, settings: Settings) -> tuple[Decision, list[str]]:
    """Bound a decision by the run's limits.

    Stops where a criterion or budget says so, drops unknown and repeated participants, falls
    back to everybody on an empty choice, adds participants up to ``run.min_replies``, clips steps
    into their bounds, fits them to the circuits and shots left, and refuses a stop before
    ``stop.min_rounds``.

    Parameters
    ----------
    decision : Decision
        What the agent said.
    seen : Observation
        What it was shown.
    settings : Settings
        The run's limits.

    Returns
    -------
    tuple
        The bounded decision, and a sentence for each change.
    """
    reason = stop_reason(seen, settings)
    if reason:
        return _stop(reason), [] if decision.stop else [OVERRULED]
    notes: list[str] = []
    if decision.stop:
        if len(seen.losses) >= settings.stop.min_rounds:
            return _stop(decision.reason), []
        notes.append(f"no stop before {settings.stop.min_rounds} rounds")
    known = {view.client: view for view in seen.clients}
    quorum = min(settings.run.min_replies, len(known))
    chosen = _participants(decision, seen, known, quorum, notes)
    steps = {}
    for k in chosen:
        wanted = decision.steps.get(k, known[k].steps)
        steps[k] = max(seen.min_steps, min(seen.max_steps, wanted))
        if steps[k] != wanted:
            notes.append(f"client {k}: {wanted} steps bounded to {steps[k]}")
    steps, said = within(steps, budgets(seen, settings), seen.min_steps, quorum)
    if not steps:
        (spent,) = said
        return _stop(spent), [*notes, OVERRULED]
    fitted = Decision(participants=tuple(steps), steps=steps, reason=decision.reason)
    return fitted, [*notes, *said]


def _stop(reason: str) -> Decision:
    return Decision(participants=(), steps={}, stop=True, reason=reason)


def _participants(
    decision: Decision,
    seen: Observation,
    known: Mapping[int, ClientView],
    quorum: int,
    notes: list[str],
) -> tuple[int, ...]:
    """Return the known clients of a decision, sorted; everybody if it has none.

    Where a round needs more replies than it has participants, those of best standing are added,
    of equal ones the cheapest.
    """
    chosen = {k for k in decision.participants if k in known}
    if len(chosen) != len(decision.participants):
        notes.append("unknown or repeated participants dropped")
    if not chosen:
        notes.append("nobody chosen: everybody trains")
        return tuple(sorted(known))

    def rank(view: ClientView) -> tuple[float, float, int]:
        return -(view.standing or 0.0), view.spend(seen.plain_steps), view.client

    others = sorted((view for k, view in known.items() if k not in chosen), key=rank)
    added = sorted(view.client for view in others[: max(0, quorum - len(chosen))])
    if added:
        who = ", ".join(str(k) for k in added)
        notes.append(f"clients added up to run.min_replies = {quorum}: {who}")
    return tuple(sorted(chosen.union(added)))
