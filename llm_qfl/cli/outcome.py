"""How a run ended, in one code and one line; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.flower_compat import NO_HEARTBEAT, SIMULATION_FAILED
from llm_qfl.cli.formatting import clip, one_line

COMPLETED = 0
FAILED = 1
INTERRUPTED = 130

LONGEST = 300
"""Characters of the line that says what went wrong; the whole of it is in the logs."""


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
class Verdict:
    """Exit code, and one line saying why (empty when the run completed)."""

    code: int
    line: str


def judge(evidence: Evidence) -> Verdict:
    """Decide the exit code: 0 only if Flower and the run's own summary both say completed.

    Parameters
    ----------
    evidence : Evidence
        What is known.

    Returns
    -------
    Verdict
        ``0``, ``1`` or ``130`` with its line.
    """
    if evidence.interrupted:
        return Verdict(INTERRUPTED, "interrupted before the run was over")
    if not evidence.launch_error and _completed(evidence):
        return Verdict(COMPLETED, "")
    return Verdict(FAILED, shortened(one_line(_failure(evidence))))


def shortened(line: str) -> str:
    """Cut out the middle of a line that is too long: its end says what to do."""
    if len(line) <= LONGEST:
        return line
    tail = 2 * LONGEST // 5
    return f"{clip(line, LONGEST - tail)}{line[-tail:]}"


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


def read_status(answer: str) -> tuple[str, str]:
    """Read the answer of ``flwr ls --run-id ID --format json``.

    Parameters
    ----------
    answer : str
        What it printed; anything before the first brace is passed over.

    Returns
    -------
    tuple of str
        ``status`` and ``status-details``; both empty if the answer cannot be read.
    """
    try:
        run = json.loads(answer[answer.index("{") :])["runs"][0]
        return str(run["status"]), str(run.get("status-details", ""))
    except (ValueError, KeyError, IndexError, TypeError):
        return "", ""
