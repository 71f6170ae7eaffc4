"""Devices in plain values and protocols: requests, budgets, jobs, services, and what jobs report.

No quantum library is loaded here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from core import BudgetError, HardwareSettings, is_shot_based
from quantum.engines.base import Usage

DONE, ERROR, CANCELLED = "DONE", "ERROR", "CANCELLED"
FINAL = (DONE, ERROR, CANCELLED)
_STATUS_NAMES = {"COMPLETED": DONE, "FAILED": ERROR}

JOB_SECONDS = 2.0
"""Overhead of a job on IBM's QPUs, seconds, as IBM documents it."""
REPETITION_SECONDS = 250e-6
"""IBM's default delay between two shots, seconds: the qubits relax."""
NOISE_FACTORS = 3
"""Zero-noise extrapolation runs each circuit at so many noise factors (IBM's default 1, 3, 5)."""


@dataclass(frozen=True)
class Request:
    """One primitive job, before it is submitted.

    Attributes
    ----------
    pubs : tuple
        What ``EstimatorV2.run`` takes.
    precision : float
        Target standard error of each expectation; shots are 1 / precision².
    key : str
        Permanent name of the job: the same key means the same job, whoever requests it and however
        often. Unique among all nodes and runs of an account.
    run : str
        Whose budget pays: one node in one run.
    label : str
        For people: what the job is for. Never sent to the service.
    circuits, shots : int
        What the job will execute, in all.
    qpu_estimate : float
        Seconds, for the budget.
    draw : str
        Names what is drawn: a simulator's shots derive from the seed and this, which is the same
        in every run of the same settings; empty: the key.
    """

    pubs: tuple[Any, ...]
    precision: float
    key: str
    run: str
    label: str
    circuits: int
    shots: int
    qpu_estimate: float = 0.0
    draw: str = ""


@dataclass(frozen=True)
class Budget:
    """The most that a node may submit in a run; 0 means no limit.

    Attributes
    ----------
    jobs, circuits, shots : int
        Submitted, whether collected or not.
    qpu_seconds : float
        Billed, or estimated where not yet known.
    """

    jobs: int = 0
    circuits: int = 0
    shots: int = 0
    qpu_seconds: float = 0.0

    @classmethod
    def of(cls, settings: HardwareSettings) -> Budget:
        """Return the budgets of the `hardware` section."""
        return cls(
            settings.budget_jobs,
            settings.budget_circuits,
            settings.budget_shots,
            settings.budget_qpu_seconds,
        )

    def check(self, spent: Usage, request: Request, *, overdraw: bool = False) -> None:
        """Refuse a job that would exceed a budget.

        Parameters
        ----------
        spent : Usage
            What the run has submitted or reserved so far.
        request : Request
            The next job.
        overdraw : bool
            Whether the QPU seconds may be exceeded.

        Raises
        ------
        BudgetError
            Names the budget, what is spent, what the job would cost and the setting to raise.
        """
        costs: dict[str, float] = {"jobs": 1, "circuits": request.circuits, "shots": request.shots}
        if not overdraw:
            costs["qpu_seconds"] = request.qpu_estimate
        for name, cost in costs.items():
            limit, used = getattr(self, name), getattr(spent, name)
            if limit and used + cost > limit:
                raise BudgetError(
                    f"hardware.budget_{name} = {limit:g} with {used:g} spent or reserved, "
                    f"and the next job would cost {cost:g}",
                    f"jobs within the {max(limit - used, 0):g} left",
                    f"raise hardware.budget_{name}, or make do with the rounds so far",
                )


class Job(Protocol):
    """A job of qiskit-ibm-runtime (or of its local mode), as far as we use it."""

    def job_id(self) -> str:
        """Return the service's name of the job."""

    def status(self) -> Any:
        """Return a status: a word, or an enumeration whose name is the word."""

    def result(self) -> Any:
        """Return one result a pub, each with ``.data.evs``; called only when done."""

    def cancel(self) -> Any:
        """Request the end of the job; ``False`` says that it goes on."""

    def usage(self) -> Any:
        """Return the QPU seconds billed, if known."""

    def metrics(self) -> dict[str, Any]:
        """Return time stamps and usage, as far as known."""

    def error_message(self) -> str | None:
        """Return why the job failed."""


class Service(Protocol):
    """Where jobs are submitted and found again."""

    @property
    def name(self) -> str:
        """The backend's name."""

    def submit(self, request: Request, tags: list[str]) -> Job:
        """Run the primitive under these tags; returns as soon as the job is accepted."""

    def find(self, job_id: str) -> Job | None:
        """Return a job of an earlier process, or None if the service knows none of this id."""

    def find_tagged(self, tag: str) -> Job | None:
        """Return a job that was accepted under a tag, or None; its id was never recorded."""

    def close(self) -> None:
        """End the session or batch, if one is open."""


def job_tag(run: str, key: str) -> str:
    """Return the tag by which a job is found when its id was lost.

    A hash: short enough for any service, and it reveals nothing of the site.
    """
    return "llm-qfl-" + hashlib.sha256(f"{run}\n{key}".encode()).hexdigest()[:24]


def attempt_key(key: str, number: int) -> str:
    """Return the key of an attempt at a job: ``key``, ``key#2``, ``key#3``, ..."""
    return key if number == 1 else f"{key}#{number}"


def qpu_seconds(
    backend: str,
    duration: float,
    circuits: int,
    shots: int,
    resilience_level: int = 0,
    jobs: int = 1,
) -> float:
    """Estimate the QPU time of jobs before they are submitted.

    ``2 s x jobs + circuits x shots x (250 us + duration of a shot)``, IBM's own rule of thumb
    ("Workload usage"), three times the circuits at resilience level 2; the calibration circuits of
    read-out mitigation are not in it. What a job really took is read back from it.

    Parameters
    ----------
    backend : str
        As `quantum.backend` names it. For a device's noise or snapshot it is what the device would
        take; `exact`, `aer` and PennyLane's devices stand for none.
    duration : float
        Of one shot's gates, seconds.
    circuits, shots : int
        Parameter sets of all jobs, and shots of each.
    resilience_level : int
        The Estimator's.
    jobs : int
        How many.

    Returns
    -------
    float
        Seconds.
    """
    if not is_shot_based(backend) or backend == "aer":
        return 0.0
    factor = NOISE_FACTORS if resilience_level == 2 else 1
    return JOB_SECONDS * jobs + factor * circuits * shots * (REPETITION_SECONDS + duration)


class MalformedError(ValueError):
    """A result that is not what was requested."""


def status_of(job: Job) -> str:
    """Return a job's status as a word: DONE, ERROR, CANCELLED, or one that is not final."""
    status = job.status()
    word = str(getattr(status, "name", status)).upper()
    if word.startswith("CANCELLED"):  # also "CANCELLED - RAN TOO LONG"
        return CANCELLED
    return _STATUS_NAMES.get(word, word)


def values_of(result: Any, request: Request) -> list[np.ndarray]:
    """Return the expectations of a finished job.

    Parameters
    ----------
    result : PrimitiveResult
        One result a pub, each with ``.data.evs``.
    request : Request
        What was requested.

    Returns
    -------
    list of np.ndarray
        float64; one of each pub's own shape: its parameter sets broadcast with its observables.

    Raises
    ------
    MalformedError
        If a value is missing, of the wrong shape, or not finite.
    """
    from qiskit.primitives.containers.estimator_pub import EstimatorPub

    shapes = [EstimatorPub.coerce(pub, request.precision).shape for pub in request.pubs]
    try:
        values = [np.array(part.data.evs, dtype=np.float64) for part in result]
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedError(f"no expectations in it ({error})") from None
    if len(values) != len(shapes):
        raise MalformedError(f"{len(values)} results for {len(shapes)} circuits")
    for value, shape in zip(values, shapes, strict=True):
        if value.shape != shape:
            raise MalformedError(f"expectations of shape {value.shape}; {shape} was requested")
        if not np.isfinite(value).all():
            raise MalformedError("expectations that are not finite")
    return values


def qpu_seconds_of(job: Job) -> float | None:
    """Return the QPU seconds billed for a job, or None if the service does not report them yet."""
    billed = _seconds(job.usage())
    return _seconds(_inner(job.metrics(), "usage", "quantum_seconds")) if billed is None else billed


def queue_seconds_of(job: Job) -> float:
    """Return the seconds from accepted to running; 0 if the time stamps do not say."""
    stamps = _inner(job.metrics(), "timestamps")
    created, running = (_moment(_inner(stamps, name)) for name in ("created", "running"))
    if created is None or running is None:
        return 0.0
    return max((running - created).total_seconds(), 0.0)


def _inner(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) and value >= 0 else None


def _moment(value: Any) -> datetime | None:
    """Return a time stamp (ISO 8601 text or datetime; UTC where it names no zone)."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
