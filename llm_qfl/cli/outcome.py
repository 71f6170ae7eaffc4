"""How a run ended, in one code and one line; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.flower_compat import NO_HEARTBEAT, SIMULATION_FAILED
from llm_qfl.cli.formatting import one_line, shortened

COMPLETED = 0
FAILED = 1
INTERRUPTED = 130


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run when it is over.

    Parameters
    ----------
    status, details : str
        Flower's last word, for instance ``finished:completed``; empty if it was never asked.
    summary, end : Mapping, optional
        ``summary.json`` and the ``end`` event, if there.
    log_error : str
        Last exception in the run's log.
    superlink_died : bool
        Whether the SuperLink ended before the run did.
    superlink_tail : str
        Last line of its log.
    launch_error : str
        Why Flower could not be started or did not take the run.
    interrupted : bool
        Whether the user stopped the run.
    """

    status: str = ""
    details: str = ""
    summary: Mapping[str, Any] | None = None
    end: Mapping[str, Any] | None = None
    log_error: str = ""
    superlink_died: bool = False
    superlink_tail: str = ""
    launch_error: str = ""
    interrupted: bool = False


@dataclass(frozen=True)
class Outcome:
    """Exit code, and one line saying why (empty when the run completed)."""

    code: int
    line: str


def outcome_of(evidence: Evidence) -> Outcome:
    """Decide the exit code: 0 only if Flower and the run's own summary both say completed.

    Parameters
    ----------
    evidence : Evidence
        What is known.

    Returns
    -------
    Outcome
        ``0``, ``1`` or ``130`` with its line.
    """
    if evidence.interrupted:
        return Outcome(INTERRUPTED, "interrupted before the run was over")
    if not evidence.launch_error and _completed(evidence):
        return Outcome(COMPLETED, "")
    return Outcome(FAILED, shortened(one_line(_failure(evidence))))


def _completed(evidence: Evidence) -> bool:
    said = (evidence.summary or {}).get("status")
    return evidence.status == "finished:completed" and said == "completed"


def _failure(evidence: Evidence) -> str:
    """Say why a run that is not completed failed."""
    if evidence.launch_error:
        return evidence.launch_error
    if evidence.superlink_died:
        said = f"; the last it said: {evidence.superlink_tail}" if evidence.superlink_tail else ""
        return f"Flower's SuperLink ended while the run went on{said}"
    reason = _reason(evidence)
    if evidence.status == "finished:stopped":
        return f"the run was stopped from outside{reason and ': ' + reason}"
    if evidence.status == "finished:completed" and not (evidence.summary or {}).get("status"):
        return f"Flower ended, but no summary was written: {reason or 'see the log'}"
    return f"the run failed: {reason or 'Flower gives no reason'}"


def _reason(evidence: Evidence) -> str:
    """Return the first cause that anybody gave, the run's own words before Flower's."""
    details = evidence.details.strip()
    candidates = (
        str((evidence.summary or {}).get("error") or ""),
        str((evidence.end or {}).get("error") or ""),
        evidence.log_error,
        "" if details == "N/A" else details.removeprefix(SIMULATION_FAILED),
    )
    said = next((line for text in candidates if (line := one_line(text))), "")
    if NO_HEARTBEAT.lower() in said.lower():
        return f"its server process was killed, hangs, or lost its SuperLink ({said})"
    return said
