"""Run one primitive job so that it is paid once and its values are not lost.

Whatever breaks in between, the connection, the service or this process: starting again with the
same request finds the job that has already been paid for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from core import BackendError, explain
from quantum.engines.base import Usage
from quantum.engines.devices.base import (
    CANCELLED,
    DONE,
    ERROR,
    FINAL,
    Budget,
    Job,
    MalformedError,
    Request,
    Service,
    attempt_key,
    job_tag,
    qpu_seconds_of,
    queue_seconds_of,
    status_of,
    values_of,
)
from quantum.engines.devices.job_store import COLLECTED, OPEN, JobStore, RecordedJob
from quantum.engines.devices.retrying_client import (
    RetryingClient,
    is_backends_own,
    is_refused_for_now,
    is_transient,
    redacted,
)

SETTLE = 5.0
"""Seconds before a job is looked for whose acceptance is not known: lists lag behind."""
FIRST_POLL, LONGEST_POLL = 0.05, 10.0
"""Seconds between two polls of a job's status."""
CANCEL_SECONDS = 15.0
"""Longest wait for the service to accept a cancellation."""

_log = logging.getLogger(__name__)


class _RetryableError(BackendError):
    """A job that ended without values and without fault of ours: worth one new attempt."""


class JobRunner:
    """Runs requests on a service and records them in a job store.

    Parameters
    ----------
    service : Service
        Where jobs run.
    store : JobStore or None
        Where they are recorded; None: in memory, for services whose jobs end with us.
    budget : Budget
        What a run may submit.
    retries : int
        Retries after a transient error, waiting twice as long each time.
    timeout : float
        Longest wait for one job with its queue, seconds.
    rng : np.random.Generator
        Jitter of the waits.
    sleep, clock : callable
        Of the `time` module; for tests.

    Attributes
    ----------
    reserved : Usage
        What budgets reserve for a later job of the same instruction.
    overdraw : bool
        Whether the next job may exceed the QPU seconds: without it the steps that were paid would
        be lost, and their time was an estimate.
    """

    def __init__(
        self,
        service: Service,
        store: JobStore | None,
        budget: Budget,
        retries: int,
        timeout: float,
        rng: np.random.Generator,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.store = JobStore(None) if store is None else store
        self.budget = budget
        self.reserved = Usage()
        self.overdraw = False
        self._client = RetryingClient(service.name, retries, rng, sleep)
        self._timeout, self._sleep, self._clock = timeout, sleep, clock

    def run(self, request: Request) -> tuple[list[np.ndarray], Usage]:
        """Return the values of a request, from the store if they are there.

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
            Of all attempts; of the first time, where the values come from the store.

        Raises
        ------
        BackendError
            If a budget does not allow the job, the service refuses or loses it, it fails, is
            cancelled or takes too long, its result is malformed, or the store cannot be used.
        """
        with self.store.claim(request.key):
            try:
                values = self._attempt(request)
            except _RetryableError as why:
                _log.warning("%s One new attempt.", why)
                values = self._attempt(request)
        return values, self.usage_of(request.key)

    def usage_of(self, key: str) -> Usage:
        """Return what all attempts at a request have cost."""
        return sum((recorded.usage for recorded in self.store.attempts(key)), Usage())

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
            If the service cannot be reached, or the store cannot be used.
        """
        count = 0
        for recorded in self.store.open_jobs(run):
            job = self._find(recorded)
            if job is None and recorded.job_id is None:
                self.store.record_end(recorded.key, "cancelled", "never accepted")
            elif job is None:
                self.store.record_end(recorded.key, "failed", "the service no longer knows it")
            elif status_of(job) not in (DONE, ERROR) and self._cancel(job):
                seconds = self._seconds(job, recorded.qpu_seconds)
                self.store.record_end(recorded.key, "cancelled", "cancelled on request", *seconds)
                count += 1
        return count

    def _attempt(self, request: Request) -> list[np.ndarray]:
        """Continue the last attempt at a request where it stands, or begin a new one."""
        attempts = self.store.attempts(request.key)
        job, number = None, len(attempts) + 1
        if attempts:
            last = attempts[-1]
            if last.status == COLLECTED and last.values is not None:
                return last.values
            # An attempt without an id may have been accepted all the same: for us it never ended.
            if last.status in OPEN or last.job_id is None:
                job, number = self._recover(last), len(attempts)
        key = attempt_key(request.key, number)
        if job is None:
            job = self._submit(request, key)
        return self._collect(request, key, job, number)

    def _recover(self, recorded: RecordedJob) -> Job | None:
        """Return the service's job of an open record; None if it was never accepted.

        Raises
        ------
        _RetryableError
            If it was accepted and the service has forgotten it.
        """
        job = self._find(recorded)
        if job is None and recorded.job_id is not None:
            self.store.record_end(recorded.key, "failed", "the service no longer knows it")
            raise _RetryableError(
                f"{self.service.name} no longer knows job {recorded.job_id}",
                "a job that the service keeps until it is collected",
                "start again: it is submitted again",
            )
        return job

    def _find(self, recorded: RecordedJob) -> Job | None:
        """Look for a recorded job by its id, then by its tag; record the id that it has."""
        job, job_id = None, recorded.job_id
        if job_id is not None:
            job = self._client.call(lambda: self.service.find(job_id), job_id)
        if job is None:
            tag = job_tag(recorded.run, recorded.key)
            job = self._client.call(lambda: self.service.find_tagged(tag), job_id)
        if job is not None and job.job_id() != job_id:
            self.store.record_id(recorded.key, job.job_id())
        return job

    def _submit(self, request: Request, key: str) -> Job:
        spent = self.store.spent(request.run, besides=key) + self.reserved
        self.budget.check(spent, request, overdraw=self.overdraw)
        self.store.record_intent(key, request, self.service.name)
        job = self._submit_once(request, key)
        self.store.record_id(key, job.job_id())
        return job

    def _submit_once(self, request: Request, key: str) -> Job:
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
                    self.store.record_end(key, "failed", redacted(error))
                    raise BackendError(
                        f"{self.service.name} refused the job ({redacted(error)})",
                        "circuits, options and an account that the backend takes",
                        "change hardware.* or quantum.backend",
                    ) from None
                if failures > self._client.retries:
                    raise self._client.unreachable(error, None) from None
                refused = is_refused_for_now(error)
            self._client.wait(failures, at_least=0.0 if refused else SETTLE)
            if not refused:
                job = self._client.call(lambda: self.service.find_tagged(tag), None)
                if job is not None:
                    return job

    def _collect(self, request: Request, key: str, job: Job, number: int) -> list[np.ndarray]:
        job_id = job.job_id()
        status = self._final_status(request, key, job)
        if status == ERROR:
            raise self._failure(request, key, job, number)
        seconds = self._seconds(job, request.qpu_estimate)
        if status == CANCELLED:
            self.store.record_end(key, "cancelled", "cancelled from outside", *seconds)
            raise BackendError(_no_values(f"job {job_id} was cancelled at {self.service.name}"))
        result = self._client.call(job.result, job_id)
        try:
            values = values_of(result, request)
        except MalformedError as error:
            self.store.record_end(key, "failed", f"malformed result: {error}", *seconds)
            what = f"the result of job {job_id} is malformed: {redacted(error)}"
            raise BackendError(_no_values(what)) from None
        self.store.record_values(key, values, *seconds)
        return values

    def _failure(self, request: Request, key: str, job: Job, number: int) -> BackendError:
        """Record a failed job and build its error."""
        reason: object = self._client.call(job.error_message, job.job_id())
        if not reason:
            reason = "no reason given"
            try:  # in local mode the failure is in the result only
                job.result()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        text = redacted(reason)
        self.store.record_end(key, "failed", text, *self._seconds(job, request.qpu_estimate))
        what = _no_values(f"job {job.job_id()} failed at {self.service.name}: {text}")
        again = number == 1 and is_backends_own(text)
        return _RetryableError(what) if again else BackendError(what)

    def _final_status(self, request: Request, key: str, job: Job) -> str:
        """Wait until a job has ended; cancel it when this process is stopped."""
        start, poll = self._clock(), FIRST_POLL
        try:
            while (status := self._status(job)) not in FINAL:
                left = self._timeout - (self._clock() - start)
                if left <= 0:
                    return self._time_out(request, key, job)
                self._sleep(min(poll, left))
                poll = min(poll * 1.5, LONGEST_POLL)
        except (KeyboardInterrupt, SystemExit):
            # A job that has ended meanwhile stays in the store, to be collected.
            if self._cancel(job):
                self.store.record_end(key, "cancelled", "stopped")
            raise
        return status

    def _status(self, job: Job) -> str:
        return self._client.call(lambda: status_of(job), job.job_id())

    def _time_out(self, request: Request, key: str, job: Job) -> str:
        """Cancel a job that took too long; its status if it has just ended."""
        cancelled = self._cancel(job)
        if cancelled:
            seconds = self._seconds(job, request.qpu_estimate)
            self.store.record_end(key, "cancelled", "took too long", *seconds)
        elif (status := self._status(job)) in FINAL:
            return status
        raise BackendError(
            f"job {job.job_id()} had not ended after {self._timeout:g} s and "
            + ("was cancelled" if cancelled else "could not be cancelled"),
            "a job that ends within hardware.job_timeout",
            "raise hardware.job_timeout, or choose a backend with a shorter queue",
        )

    def _cancel(self, job: Job) -> bool:
        """Request a job's end; whether the service agreed, within a bounded time."""
        agreed: list[bool] = []

        def cancel() -> None:
            try:
                agreed.append(job.cancel() is not False)
            except Exception as error:  # best effort: the job stays in the store
                _log.warning("Job %s could not be cancelled: %s", job.job_id(), redacted(error))

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        thread.join(CANCEL_SECONDS)
        return agreed == [True]

    def _seconds(self, job: Job, estimate: float) -> tuple[float, float]:
        """Return a job's QPU seconds, as estimated if the service does not report them; queue's."""
        qpu, queue = None, 0.0
        try:
            qpu = self._client.call(lambda: qpu_seconds_of(job), job.job_id())
            queue = self._client.call(lambda: queue_seconds_of(job), job.job_id())
        except BackendError as error:
            _log.warning("The cost of job %s stays estimated. %s", job.job_id(), error)
        return estimate if qpu is None else qpu, queue


def _no_values(what: str) -> str:
    return explain(
        what, "a job that ends with finite values", "start again to submit it again, at its price"
    )
