"""The one place that asks for a decision and bounds it, whoever makes it."""

from __future__ import annotations

from collections.abc import Mapping

from federation import Settings
from llm.agent import Agent, Decision, Observation
from strategies.termination import stop_reason


def decide(
    agent: Agent, seen: Observation, settings: Settings
) -> tuple[Decision, list[str], Agent | None]:
    """Ask the agent for a round's decision and bound it.

    Returns
    -------
    tuple
        The bounded decision, a sentence for each change, and who was asked: nobody, if no client
        is left to choose from.
    """
    if not seen.clients:
        spent = "the budget of every client is spent"
        return Decision(participants=(), steps={}, stop=True, reason=spent), [], None
    decision, notes = guard(agent.decide(seen), seen, settings)
    return decision, notes, agent


def guard(decision: Decision, seen: Observation, settings: Settings) -> tuple[Decision, list[str]]:
    """Bound a decision by the run's limits.

    Stops where a criterion or budget says so, drops unknown and repeated participants, falls
    back to everybody on an empty choice, clips steps into their bounds, scales steps to the
    circuits left, and refuses a stop before ``stop.min_rounds``.

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
        return Decision(participants=(), steps={}, stop=True, reason=reason), []
    notes: list[str] = []
    if decision.stop:
        if len(seen.losses) >= settings.stop.min_rounds:
            return Decision(participants=(), steps={}, stop=True, reason=decision.reason), []
        notes.append(f"no stop before {settings.stop.min_rounds} rounds")
    known = {view.client: view for view in seen.clients}
    chosen = tuple(sorted({k for k in decision.participants if k in known}))
    if len(chosen) != len(decision.participants):
        notes.append("unknown or repeated participants dropped")
    if not chosen:
        chosen = tuple(sorted(known))
        notes.append("nobody chosen: everybody trains")
    steps = {}
    for k in chosen:
        wanted = decision.steps.get(k, known[k].steps)
        steps[k] = max(seen.min_steps, min(seen.max_steps, wanted))
        if steps[k] != wanted:
            notes.append(f"client {k}: {wanted} steps bounded to {steps[k]}")
    everybody = settings.evaluation.mode == "federated"
    shots = {k: view.shots_per_circuit for k, view in known.items()}
    for unit, left, prices in (
        ("circuits", seen.circuits_left, dict.fromkeys(known, 1)),
        ("shots", seen.shots_left, shots),
    ):
        steps, cut = _within_budget(steps, seen, unit, left, prices, everybody=everybody)
        if cut == "stop":
            spent = f"the {left} {unit} left do not pay for another round"
            return Decision(participants=(), steps={}, stop=True, reason=spent), []
        if cut:
            notes.append(cut)
    return Decision(participants=chosen, steps=steps, reason=decision.reason), notes


def _within_budget(
    steps: dict[int, int],
    seen: Observation,
    unit: str,
    left: int | None,
    prices: Mapping[int, int],
    *,
    everybody: bool,
) -> tuple[dict[int, int], str]:
    """Scale steps so that the round's circuits, or shots, fit what is left of the budget.

    ``prices`` are units a circuit, by client. Under federated evaluation everybody runs the
    circuits that are not steps.
    """
    if left is None:
        return steps, ""
    view = {v.client: v for v in seen.clients}
    fixed = sum(prices[k] * v.circuits_fixed for k, v in view.items() if everybody or k in steps)
    wanted = sum(m * prices[k] * view[k].circuits_per_step for k, m in steps.items())
    rest = left - fixed
    if wanted <= rest:
        return steps, ""
    scaled = {k: int(m * rest / wanted) for k, m in steps.items()} if wanted else {}
    if rest <= 0 or not scaled or min(scaled.values()) < seen.min_steps:
        return steps, "stop"
    return scaled, f"steps scaled by {rest / wanted:.2f} to the {left} {unit} left"
