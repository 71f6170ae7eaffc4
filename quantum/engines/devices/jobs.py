"""Run one primitive job so that it is paid once and its values are not lost.

Whatever breaks in between, the connection, the service or this process, starting again with the
same request finds the job it has already paid for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from core import BackendError, explain
from quantum.engines.base import Usage
from quantum.engines.devices.contract import (
    CANCELLED,
    DONE,
    ERROR,
    FINAL,
    Budget,
    Job,
    Request,
    Service,
    attempt_key,
    job_tag,
)
from quantum.engines.devices.job_store import COLLECTED, OPEN, Entry, JobBook
from quantum.engines.devices.retrying_client import (
    Line,
    is_backends_own,
    is_refused_for_now,
    is_transient,
    redacted,
)

__all__ = ["Budget", "Job", "JobRunner", "Request", "Service", "Usage"]

SETTLE = 5.0
"""Seconds before a job is looked for whose acceptance is not known: lists lag behind."""
FIRST_POLL, LONGEST_POLL = 0.05, 10.0
"""Seconds between two looks at a job's status."""
CANCEL_SECONDS = 15.0
"""Longest wait for the service to take a cancellation."""

_log = logging.getLogger(__name__)


class _AnewError(BackendError):
    """A job that ended without values and without fault of ours: worth one new attempt."""


class JobRunner:
    """Runs requests on a service, by the book.

    Parameters
    ----------
    service : Service
        Where jobs run.
    book : JobBook or None
        Where they are written down; None: in memory, for services whose jobs end with us.
    budget : Budget
        What a run may submit.
    retries : int
        Tries after a transient error, waiting twice as long each time.
    timeout : float
        Longest wait for one job with its queue, seconds.
    rng : np.random.Generator
        Jitter of the waits.
    sleep, clock : callable
        Of the `time` module; for tests.

    Attributes
    ----------
    reserved : Usage
        What budgets keep back for a later job of the same order.
    overdraw : bool
        Whether the next job may exceed the QPU seconds: without it the steps that were paid would
        be lost, and their time was an estimate.
    """

    def __init__(
        self,
        service: Service,
        book: JobBook | None,
        budget: Budget,
        retries: int,
        timeout: float,
        rng: np.random.Generator,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.book = JobBook(None) if book is None else book
        self.budget = budget
        self.reserved = Usage()
        self.overdraw = False
        self._line = Line(service.name, retries, rng, sleep)
        self._timeout = timeout
        self._sleep = sleep
        self._clock = clock

    def run(self, request: Request) -> tuple[list[np.ndarray], Usage]:
        """Return the values of a request, from the book if they are there.

        A job that failed by the backend's own fault, or that the service has forgotten, is
        submitted once more, under the key ``<key>#2``. Ctrl-C and `SystemExit` cancel the job.

        Parameters
        ----------
        request : Request
            The job. The same key always means the same job.

        Returns
        -------
        list of np.ndarray
            float64 expectations, one array of the pub's shape for each pub.
        Usage
            Of all attempts; of the first time, where the values come from the book.

        Raises
        ------
        BackendError
            If a budget does not allow the job, the service refuses or loses it, it fails, is
            cancelled or takes too long, its result is malformed, or the book cannot be used.
        """
        with self.book.claim(request.key):
            try:
                values = self._attempt(request)
            except _AnewError as why:
                _log.warning("%s One new attempt.", why)
                values = self._attempt(request)
        return values, self.usage_of(request.key)

    def usage_of(self, key: str) -> Usage:
        """Return what all attempts at a request have cost."""
        return sum((entry.usage for entry in self.book.attempts(key)), Usage())

    def open_jobs(self, run: str | None = None) -> list[Entry]:
        """Return the jobs that may still run or wait to be collected, of one run or of all."""
        return self.book.open_jobs(run)

    def cancel_open(self, run: str | None = None) -> int:
        """Cancel the open jobs of a run, or of all runs.

        A job that is done already stays open, to be collected.

        Returns
        -------
        int
            How many jobs were cancelled.

        Raises
        ------
        BackendError
            If the service cannot be reached, or the book cannot be used.
        """
        count = 0
        for entry in self.book.open_jobs(run):
            job = self._found(entry)
            if job is None and entry.job_id is None:
                self.book.cancelled(entry.key, "never accepted")
            elif job is None:
                self.book.failed(entry.key, "the service no longer knows it")
            elif status_of(job) not in (DONE, ERROR) and self._cancel(job):
                self._written(entry, job)
                self.book.cancelled(entry.key, "cancelled on request", self._usage(job, entry))
                count += 1
        return count

    def _attempt(self, request: Request) -> list[np.ndarray]:
        """Go on with the last attempt at a request where it stands, or begin a new one."""
        attempts = self.book.attempts(request.key)
        last = attempts[-1] if attempts else None
        job, number = None, len(attempts) + 1
        if last is not None:
            if last.status == COLLECTED and last.values is not None:
                return last.values
            # An attempt without an id may have been accepted all the same: never ended, for us.
            if last.status in OPEN or last.job_id is None:
                job, number = self._recovered(last), len(attempts)
        key = attempt_key(request.key, number)
        if job is None:
            job = self._submit(request, key)
        return self._collect(request, key, job, number)

    def _recovered(self, entry: Entry) -> Job | None:
        """Return the job of an open entry; None if it was never accepted.

        Raises
        ------
        _AnewError
            If it was accepted and the service has forgotten it.
        """
        job = self._found(entry)
        if job is not None:
            self._written(entry, job)
        elif entry.job_id is not None:
            self.book.failed(entry.key, "the service no longer knows it")
            raise _AnewError(
                f"{self.service.name} no longer knows job {entry.job_id}",
                "a job that the service keeps until it is collected",
                "start again: it is submitted anew",
            )
        return job

    def _found(self, entry: Entry) -> Job | None:
        """Look for an entry's job by its id, then by its tag."""
        job = None
        if (job_id := entry.job_id) is not None:
            job = self._line.ask(lambda: self.service.find(job_id), entry.job_id)
        if job is None:
            tag = job_tag(entry.run, entry.key)
            job = self._line.ask(lambda: self.service.find_tagged(tag), entry.job_id)
        return job

    def _written(self, entry: Entry, job: Job) -> None:
        if entry.job_id != job.job_id():
            self.book.submitted(entry.key, job.job_id())

    def _submit(self, request: Request, key: str) -> Job:
        spent = self.book.spent(request.run, besides=key) + self.reserved
        self.budget.check(spent, request, seconds=not self.overdraw)
        self.book.intend(
            key,
            run=request.run,
            label=request.label,
            backend=self.service.name,
            circuits=request.circuits,
            shots=request.shots,
            qpu_estimate=request.qpu_estimate,
        )
        job = self._accepted(request, key)
        self.book.submitted(key, job.job_id())
        return job

    def _accepted(self, request: Request, key: str) -> Job:
        """Submit until the service has accepted once, looking first whenever that is unknown."""
        tag = job_tag(request.run, key)
        failures = 0
        while True:
            try:
                return self.service.submit(request, [tag])
            except BackendError:
                raise
            except Exception as error:  # the client raises many kinds, of several libraries
                failures += 1
                if not is_transient(error):
                    self.book.failed(key, redacted(error))
                    raise self._line.refused(error) from None
                if failures > self._line.retries:
                    raise self._line.unreachable(error, None) from None
                refused = is_refused_for_now(error)
            self._line.wait(failures, at_least=0.0 if refused else SETTLE)
            job = None if refused else self._line.ask(lambda: self.service.find_tagged(tag), None)
            if job is not None:
                return job

    def _collect(self, request: Request, key: str, job: Job, number: int) -> list[np.ndarray]:
        job_id = job.job_id()
        status = self._final_status(request, key, job)
        if status == ERROR:
            raise self._failure(request, key, job, number)
        usage = self._usage(job, request)
        if status == CANCELLED:
            self.book.cancelled(key, "cancelled from outside", usage)
            raise BackendError(_no_values(f"job {job_id} was cancelled at {self.service.name}"))
        result = self._line.ask(job.result, job_id)
        try:
            values = values_of(result, request)
        except MalformedError as error:
            self.book.failed(key, f"malformed result: {error}", usage)
            what = f"the result of job {job_id} is malformed: {redacted(error)}"
            raise BackendError(_no_values(what)) from None
        self.book.collected(key, values, usage)
        return values

    def _failure(self, request: Request, key: str, job: Job, number: int) -> BackendError:
        """Write a failed job down and build its error."""
        reason = redacted(self._reason(job))
        self.book.failed(key, reason, self._usage(job, request))
        what = _no_values(f"job {job.job_id()} failed at {self.service.name}: {reason}")
        return _AnewError(what) if number == 1 and is_backends_own(reason) else BackendError(what)

    def _reason(self, job: Job) -> object:
        told = self._line.ask(job.error_message, job.job_id())
        if told:
            return told
        try:  # in local mode the failure is in the result only
            job.result()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "no reason given"

    def _final_status(self, request: Request, key: str, job: Job) -> str:
        """Wait until a job has ended."""
        try:
            return self._waited(request, key, job)
        except (KeyboardInterrupt, SystemExit):
            # Cancel on stop. A job that has ended meanwhile stays in the book, to be collected.
            if self._cancel(job):
                self.book.cancelled(key, "stopped")
            raise

    def _waited(self, request: Request, key: str, job: Job) -> str:
        start, poll = self._clock(), FIRST_POLL
        while True:
            status = self._line.ask(lambda: status_of(job), job.job_id())
            if status in FINAL:
                return status
            left = self._timeout - (self._clock() - start)
            if left <= 0:
                return self._too_long(request, key, job)
            self._sleep(min(poll, left))
            poll = min(poll * 1.5, LONGEST_POLL)

    def _too_long(self, request: Request, key: str, job: Job) -> str:
        """Cancel a job that took too long; its status if it has just ended."""
        cancelled = self._cancel(job)
        if cancelled:
            self.book.cancelled(key, "took too long", self._usage(job, request))
        elif (status := self._line.ask(lambda: status_of(job), job.job_id())) in FINAL:
            return status
        raise BackendError(
            f"job {job.job_id()} had not ended after {self._timeout:g} s and "
            + ("was cancelled" if cancelled else "could not be cancelled"),
            "a job that ends within hardware.job_timeout",
            "raise hardware.job_timeout, or choose a backend with a shorter queue",
        )

    def _cancel(self, job: Job) -> bool:
        """Ask for a job's end; whether the service agreed, within a bounded time."""
        agreed: list[bool] = []

        def ask() -> None:
            try:
                agreed.append(job.cancel() is not False)
            except Exception as error:  # best effort: the job stays in the book
                _log.warning("Job %s could not be cancelled: %s", job.job_id(), redacted(error))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(CANCEL_SECONDS)
        return agreed == [True]

    def _usage(self, job: Job, of: Request | Entry) -> Usage:
        """Return what a job cost; as estimated, where the service does not tell."""
        qpu, queue = None, 0.0
        try:
            qpu = self._line.ask(lambda: qpu_seconds_of(job), job.job_id())
            queue = self._line.ask(lambda: queue_seconds_of(job), job.job_id())
        except BackendError as error:
            _log.warning("The cost of job %s stays estimated. %s", job.job_id(), error)
        if qpu is None:
            qpu = of.qpu_estimate if isinstance(of, Request) else of.qpu_seconds
        return Usage(1, of.circuits, of.shots, qpu, queue)


def _no_values(what: str) -> str:
    return explain(
        what, "a job that ends with finite values", "start again to submit it anew, at its price"
    )


_WORDS = {"COMPLETED": DONE, "FAILED": ERROR}


class MalformedError(ValueError):
    """A result that is not what was asked for."""


def status_of(job: Job) -> str:
    """Return a job's status as a word: DONE, ERROR, CANCELLED, or one that is not final."""
    status = job.status()
    word = str(getattr(status, "name", status)).upper()
    if word.startswith("CANCELLED"):  # also "CANCELLED - RAN TOO LONG"
        return CANCELLED
    return _WORDS.get(word, word)


def values_of(result: Any, request: Request) -> list[np.ndarray]:
    """Return the expectations of a finished job.

    Parameters
    ----------
    result : PrimitiveResult
        One result a pub, each with ``.data.evs``.
    request : Request
        What was asked.

    Returns
    -------
    list of np.ndarray
        float64; one of each pub's own shape.

    Raises
    ------
    MalformedError
        If a value is missing, of the wrong shape, or not finite.
    """
    shapes = _shapes(request)
    try:
        values = [np.array(part.data.evs, dtype=np.float64) for part in result]
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedError(f"no expectations in it ({error})") from None
    if len(values) != len(shapes):
        raise MalformedError(f"{len(values)} results for {len(shapes)} circuits")
    for value, shape in zip(values, shapes, strict=True):
        if value.shape != shape:
            raise MalformedError(f"expectations of shape {value.shape} where {shape} was asked")
        if not np.isfinite(value).all():
            raise MalformedError("expectations that are not finite")
    return values


def _shapes(request: Request) -> list[tuple[int, ...]]:
    """Return the shape of each pub: its parameter sets broadcast with its observables."""
    from qiskit.primitives.containers.estimator_pub import EstimatorPub

    return [EstimatorPub.coerce(pub, request.precision).shape for pub in request.pubs]


def qpu_seconds_of(job: Job) -> float | None:
    """Return the QPU seconds billed for a job, or None if the service does not tell (yet)."""
    told = _seconds(job.usage())
    return _seconds(_inner(job.metrics(), "usage", "quantum_seconds")) if told is None else told


def queue_seconds_of(job: Job) -> float:
    """Return the seconds from accepted to running; 0 if the time stamps do not tell."""
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
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
