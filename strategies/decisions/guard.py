"""The one place that asks for a decision and bounds it, whoever makes it; and when a run ends."""

from __future__ import annotations

from collections.abc import Sequence

from core import Settings
from core.formatting import MOST_LISTED, listed
from core.settings.run import StopSettings
from core.settings.secure import fewest_participants
from strategies.decisions import Agent, ClientView, Decision, Observation
from strategies.decisions.budget import budgets, within
from strategies.decisions.harmless import EVERYBODY, why_not
from strategies.regulation import rounds_without_gain

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
    reason = stop_reason(seen, settings) if seen.clients else "the budget of every client is spent"
    if reason:
        return Decision.to_stop(reason), [], None
    decision, notes = guard(agent.decide(seen), seen, settings)
    return decision, notes, agent


def guard(decision: Decision, seen: Observation, settings: Settings) -> tuple[Decision, list[str]]:
    """Bound a decision by the run's limits.

    Stops where a criterion or budget says so, lets everybody train where leaving clients out might
    do harm (``agent.leave_out``), drops unknown and repeated participants, falls back to everybody
    on an empty choice, adds participants up to ``run.min_replies``, clips steps
    into their bounds, fits them to the circuits and shots left, and refuses a stop before
    ``stop.min_rounds``.

    Parameters
    ----------
    decision : Decision
        The agent's.
    seen : Observation
        What the agent was shown.
    settings : Settings
        The run's limits.

    Returns
    -------
    tuple
        The bounded decision, and a sentence for each change.
    """
    reason = stop_reason(seen, settings)
    if reason:
        return Decision.to_stop(reason), [] if decision.stop else [OVERRULED]
    notes: list[str] = []
    if decision.stop:
        if len(seen.losses) >= settings.stop.min_rounds:
            return Decision.to_stop(decision.reason), []
        notes.append(f"no stop before {settings.stop.min_rounds} rounds")
    chosen = [view for view in seen.clients if view.client in decision.participants]
    solved = all(view.standing is not None for view in chosen)
    least = min(fewest_participants(settings, solved), len(seen.clients))
    if decision.participants and settings.agent.leave_out == "when-harmless":
        decision = _harmless(decision, seen, notes)
    steps, bounded = {}, list[str]()
    own = min(settings.run.min_replies, len(seen.clients)) == least
    limit = f"run.min_replies = {least}" if own else f"the {least} that sums of groups need"
    for view in _participants(decision, seen, least, limit, notes):
        wanted = decision.steps.get(view.client, view.steps)
        steps[view.client] = max(seen.min_steps, min(seen.max_steps, wanted))
        if steps[view.client] != wanted:
            bounded.append(f"client {view.client}: {wanted} steps bounded to {steps[view.client]}")
    notes += bounded[:MOST_LISTED]
    if (more := len(bounded) - MOST_LISTED) > 0:
        notes.append(f"steps of {more} clients more bounded")
    steps, changes = within(steps, budgets(seen, settings), seen.min_steps, least)
    if not steps:
        (spent,) = changes
        return Decision.to_stop(spent), [*notes, OVERRULED]
    return Decision.to_train(steps, decision.reason), [*notes, *changes]


def _harmless(decision: Decision, seen: Observation, notes: list[str]) -> Decision:
    """Let everybody train plain steps where leaving clients out might do harm."""
    test, why = why_not(decision.participants, seen)
    if not test:
        return decision
    notes.append(f"{EVERYBODY}{test}: {why}")
    return Decision.to_train({v.client: seen.plain_steps for v in seen.clients}, decision.reason)


def _participants(
    decision: Decision, seen: Observation, least: int, limit: str, notes: list[str]
) -> list[ClientView]:
    """Return a decision's known clients by index, everybody if it has none.

    Where a round needs more replies than it has participants (the least, by the limit so called),
    those of the best average credit are added, of equal ones the cheapest.
    """
    wanted = set(decision.participants)
    chosen = [view for view in seen.clients if view.client in wanted]
    if len(chosen) != len(decision.participants):
        notes.append("unknown or repeated participants dropped")
    if not chosen:
        notes.append("nobody chosen: everybody trains")
        return sorted(seen.clients, key=_index)

    def rank(view: ClientView) -> tuple[float, float, int]:
        return -(view.standing or 0.0), view.cost(seen.plain_steps), view.client

    others = sorted((view for view in seen.clients if view.client not in wanted), key=rank)
    added = sorted(others[: max(0, least - len(chosen))], key=_index)
    if added:
        who = listed(view.client for view in added)
        notes.append(f"clients added up to {limit}: {who}")
    return sorted([*chosen, *added], key=_index)


def _index(view: ClientView) -> int:
    return view.client


def change_below(alignments: Sequence[float], tau: float) -> bool:
    """Paper's first criterion: |mean_k d_k(t) - mean_k d_k(t-1)| < tau."""
    return len(alignments) >= 2 and abs(alignments[-1] - alignments[-2]) < tau


def gap_below(server_loss: float, llm_loss: float | None, tau: float) -> bool:
    """Paper's second criterion: |L_server - L_LLM,server| < tau."""
    return llm_loss is not None and abs(server_loss - llm_loss) < tau


def out_of_patience(losses: Sequence[float], patience: int, min_gain: float = 0.0) -> bool:
    """Say whether the loss was last lowered enough `patience` or more rounds ago (0: never)."""
    if patience <= 0 or not losses:
        return False
    return rounds_without_gain(losses, min_gain)[-1] >= patience


def stop_reason(seen: Observation, settings: Settings) -> str:
    """Say why the run should end now, or return an empty string.

    Budgets hold from the first round on; every other criterion waits for
    ``stop.min_rounds`` finished rounds.

    Parameters
    ----------
    seen : Observation
        State after the last finished round.
    settings : Settings
        Criteria and limits.

    Returns
    -------
    str
        One sentence, or "".
    """
    stop = settings.stop
    spent = _spent_budget(seen, stop)
    if spent or len(seen.losses) < stop.min_rounds:
        return spent
    loss = seen.losses[-1]
    if stop.target_accuracy and seen.accuracies[-1] >= stop.target_accuracy:
        return f"target accuracy {stop.target_accuracy:g} is reached ({seen.accuracies[-1]:.3f})"
    if out_of_patience(seen.losses, stop.patience, stop.min_gain):
        return f"no better validation loss for {stop.patience} rounds"
    if stop.rule in ("change", "either") and change_below(seen.alignments, stop.tau):
        moved = abs(seen.alignments[-1] - seen.alignments[-2])
        return f"mean |L_k - L_server| moved by {moved:.4f} < tau = {stop.tau:g}"
    if stop.rule in ("gap", "either") and gap_below(loss, seen.llm_loss, stop.tau):
        return f"|L_server - L_LLM| = {abs(loss - (seen.llm_loss or 0)):.4f} < tau = {stop.tau:g}"
    return ""


def _spent_budget(seen: Observation, stop: StopSettings) -> str:
    limits = (
        (seen.circuits_left, f"{stop.circuits} circuits"),
        (seen.shots_left, f"{stop.shots} shots"),
        (seen.qpu_seconds_left, f"{stop.qpu_seconds:g} QPU seconds"),
        (seen.seconds_left, f"{stop.wall_seconds:g} seconds"),
    )
    spent = (
        f"budget of {name} is spent" for left, name in limits if left is not None and left <= 0
    )
    return next(spent, "")
