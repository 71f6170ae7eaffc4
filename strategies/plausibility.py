"""What a client's numbers may be at most, by its instruction; pure.

A count that its instruction cannot cost (rows, steps, circuits, shots, jobs) drops the reply: an
honest client never exceeds it, for the count follows from the instruction. Seconds are measured,
so a clock may be off: what is longer than the server has waited is cut to that, with a warning.
So no count above what was instructed ends a run by its budget. QPU seconds are believed up to
`JOB_SECONDS` a job: a client that lies in them can still use up `stop.qpu_seconds`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from core import Settings
from core.messages import AdaptReport, EvaluateReport, SiteReport, TrainReport

JOB_SECONDS, SHOT_SECONDS = 600.0, 0.01
"""QPU seconds that a job and a shot may take: about 2 and 0.0003 with IBM, more with mitigation."""

MOST_GATES = 10**6
"""Two-qubit gates of one circuit, far above what any device can run."""

MOST_TOKENS = 256
"""Tokens of a row where `llm.max_tokens` leaves them to the kind of data."""

SLACK_SECONDS, SLACK = 1.0, 1.01
"""How much longer than the server's clock a client's may run: seconds, and a factor."""

CONFUSIONS = ("confusion", "logistic_projected", "logistic_full")
"""Fields of an `EvaluateReport` that hold a confusion; empty ones were not requested."""

Timed = TypeVar("Timed", bound=AdaptReport | EvaluateReport | TrainReport)


@dataclass(frozen=True)
class Limits:
    """What a client's reply may declare at most.

    Attributes
    ----------
    rows : int
        Rows that the client reported before the run; a reply declares the same.
    circuits : int
        Circuits that the instruction can cost.
    shots : int
        Shots of a circuit, as reported before the run.
    tokens : int
        Tokens that a language model can be trained on.
    """

    rows: int
    circuits: int = 0
    shots: int = 0
    tokens: int = 0


def most_tokens(about: SiteReport, settings: Settings) -> int:
    """Return the most tokens that a client's language model is trained on.

    Each of its rows in each epoch, once for each model of a cross-fitted teacher.
    """
    llm, models = settings.llm, max(1, settings.distill.folds)
    return about.train_rows * (llm.max_tokens or MOST_TOKENS) * llm.epochs * models


def check_training(
    report: TrainReport, server_round: int, steps: int | None, limits: Limits
) -> str:
    """Say which of a participant's numbers cannot be true, or return an empty string.

    Parameters
    ----------
    report : TrainReport
        What a client answered.
    server_round : int
        The round under way.
    steps : int or None
        Optimizer steps it was given; None if it was not to train.
    limits : Limits
        Of its training rows.
    """
    if report.round != server_round:
        return f"it answers round {report.round}"
    if steps is None:
        return "it was not to train"
    if report.steps > steps:
        return f"steps {report.steps} instead of at most {steps}"
    if report.llm_tokens > limits.tokens:
        return f"{report.llm_tokens} tokens of {limits.tokens}"
    if report.llm_cut > limits.rows:
        return f"{report.llm_cut} texts cut of {limits.rows}"
    return _rows(report.rows, limits) or _circuits(report, limits)


def check_evaluation(report: EvaluateReport, classes: int, limits: Limits) -> str:
    """Say which of an evaluation's numbers cannot be true, or return an empty string.

    Parameters
    ----------
    report : EvaluateReport
        What a client answered.
    classes : int
        Number of classes.
    limits : Limits
        Of the rows of that split.
    """
    if wrong := _rows(report.rows, limits) or _circuits(report, limits):
        return wrong
    for confusion in (getattr(report, name) for name in CONFUSIONS):
        if confusion and (len(confusion) != classes**2 or sum(confusion) != report.rows):
            return f"a confusion of {len(confusion)} numbers adding up to {sum(confusion)}"
    return "no confusion" if report.rows and not report.confusion else ""


def check_adaptation(report: AdaptReport, server_round: int, limits: Limits) -> str:
    """Say which numbers of a part in the shared adapter cannot be true, or return an empty string.

    Parameters
    ----------
    report : AdaptReport
        What a client answered.
    server_round : int
        The round of averaging under way.
    limits : Limits
        Of its training rows.
    """
    if report.round != server_round:
        return f"it answers round {report.round}"
    if report.llm_tokens > limits.tokens:
        return f"{report.llm_tokens} tokens of {limits.tokens}"
    return _rows(report.rows, limits)


def _rows(rows: int, limits: Limits) -> str:
    return "" if rows == limits.rows else f"{rows} rows instead of {limits.rows}"


def _circuits(report: TrainReport | EvaluateReport, limits: Limits) -> str:
    """Hold what a device is reported to have done against the circuits of the instruction."""
    ran, seconds = report.circuits, JOB_SECONDS * report.jobs + SHOT_SECONDS * report.shots
    for name, found, most in (
        ("circuits", ran, limits.circuits),
        ("shots", report.shots, limits.shots * ran),
        ("jobs", report.jobs, ran),
        ("two-qubit gates", report.two_qubit_gates, MOST_GATES * ran),
        ("QPU seconds", report.qpu_seconds, seconds),
    ):
        if found > most:
            return f"{found} {name} of {most}"
    return ""


def within_time(report: Timed, elapsed: float, wait: float) -> tuple[Timed, str]:
    """Cut the seconds of a report to what can have passed, and say which were cut.

    Parameters
    ----------
    report : AdaptReport, EvaluateReport or TrainReport
        What a client answered.
    elapsed : float
        Seconds since the instruction.
    wait : float
        Longest wait for one job, seconds: a job may have been in its queue before the instruction,
        if that is carried out again.

    Returns
    -------
    tuple
        The report, with seconds of at most these; and what was cut, empty if nothing was.
    """
    worked = SLACK_SECONDS + SLACK * elapsed
    bounds = {"train_seconds": worked, "llm_seconds": worked}
    bounds["queue_seconds"] = wait * getattr(report, "jobs", 0)
    found = {name: getattr(report, name, 0.0) for name in bounds}
    cut: dict[str, Any] = {k: most for k, most in bounds.items() if found[k] > most}
    text = ", ".join(f"{name} = {found[name]:.0f} cut to {cut[name]:.0f}" for name in cut)
    return replace(report, **cut) if cut else report, text


def longest_wait(settings: Settings) -> float:
    """Return the seconds that a client waits for one job at most, with its queue."""
    return max(settings.hardware.job_timeout, settings.run.round_timeout)
