"""When a run ends before its last round: the paper's two criteria and ours, pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from core import Settings
from strategies.agents import Observation


def change_below(alignments: Sequence[float], tau: float) -> bool:
    """Paper's first criterion: |mean_k d_k(t) - mean_k d_k(t-1)| < tau."""
    return len(alignments) >= 2 and abs(alignments[-1] - alignments[-2]) < tau


def gap_below(server_loss: float, llm_loss: float | None, tau: float) -> bool:
    """Paper's second criterion: |L_server - L_LLM,server| < tau."""
    return llm_loss is not None and abs(server_loss - llm_loss) < tau


def out_of_patience(losses: Sequence[float], patience: int) -> bool:
    """Say whether the best loss is `patience` or more rounds old (0: never)."""
    if patience <= 0 or not losses:
        return False
    best = min(range(len(losses)), key=losses.__getitem__)
    return len(losses) - 1 - best >= patience


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
    stop, done = settings.stop, len(seen.losses)
    if seen.circuits_left is not None and seen.circuits_left <= 0:
        return f"budget of {stop.circuits} circuits is spent"
    if seen.shots_left is not None and seen.shots_left <= 0:
        return f"budget of {stop.shots} shots is spent"
    if seen.qpu_seconds_left is not None and seen.qpu_seconds_left <= 0:
        return f"budget of {stop.qpu_seconds:g} QPU seconds is spent"
    if seen.seconds_left is not None and seen.seconds_left <= 0:
        return f"budget of {stop.wall_seconds:g} seconds is spent"
    if done < stop.min_rounds:
        return ""
    loss = seen.losses[-1]
    if stop.target_accuracy and seen.accuracies[-1] >= stop.target_accuracy:
        return f"target accuracy {stop.target_accuracy:g} is reached ({seen.accuracies[-1]:.3f})"
    if out_of_patience(seen.losses, stop.patience):
        return f"no better validation loss for {stop.patience} rounds"
    if stop.rule in ("change", "either") and change_below(seen.alignments, stop.tau):
        moved = abs(seen.alignments[-1] - seen.alignments[-2])
        return f"mean |L_k - L_server| moved by {moved:.4f} < tau = {stop.tau:g}"
    if stop.rule in ("gap", "either") and gap_below(loss, seen.llm_loss, stop.tau):
        return f"|L_server - L_LLM| = {abs(loss - (seen.llm_loss or 0)):.4f} < tau = {stop.tau:g}"
    return ""
