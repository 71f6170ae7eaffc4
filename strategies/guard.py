"""The one place that bounds a decision, whoever made it."""

from __future__ import annotations

from federation import Settings
from llm.agent import Decision, Observation
from strategies.termination import stop_reason


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
    steps, cut = _within_budget(steps, seen, everybody=settings.evaluation.mode == "federated")
    if cut == "stop":
        spent = f"the {seen.circuits_left} circuits left do not pay for another round"
        return Decision(participants=(), steps={}, stop=True, reason=spent), []
    if cut:
        notes.append(cut)
    return Decision(participants=chosen, steps=steps, reason=decision.reason), notes


def _within_budget(
    steps: dict[int, int], seen: Observation, *, everybody: bool
) -> tuple[dict[int, int], str]:
    """Scale steps so that the round's circuits fit what is left of the budget.

    Under federated evaluation everybody runs the circuits that are not steps.
    """
    if seen.circuits_left is None:
        return steps, ""
    view = {v.client: v for v in seen.clients}
    fixed = sum(v.circuits_fixed for k, v in view.items() if everybody or k in steps)
    wanted = sum(m * view[k].circuits_per_step for k, m in steps.items())
    left = seen.circuits_left - fixed
    if wanted <= left:
        return steps, ""
    scaled = {k: int(m * left / wanted) for k, m in steps.items()}
    if left <= 0 or min(scaled.values()) < seen.min_steps:
        return steps, "stop"
    return scaled, f"steps scaled by {left / wanted:.2f} to the {seen.circuits_left} circuits left"
