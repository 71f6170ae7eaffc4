"""The line to the service: calls repeated while it is broken, and the errors if it stays so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from core import BackendError
from quantum.engines.devices.failures import is_transient, redacted

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Back-off, seconds, before jitter."""

T = TypeVar("T")


class Line:
    """Calls to one service, with back-off.

    Parameters
    ----------
    name : str
        The backend's name, for messages.
    retries : int
        Tries after a transient error.
    rng : np.random.Generator
        Jitter: nodes that broke down together do not come back together.
    sleep : callable
        ``time.sleep``, or a test's.
    """

    def __init__(
        self, name: str, retries: int, rng: np.random.Generator, sleep: Callable[[float], object]
    ) -> None:
        self.name = name
        self.retries = retries
        self._rng = rng
        self._sleep = sleep

    def ask(self, call: Callable[[], T], job_id: str | None) -> T:
        """Call the service until it answers, at most `retries` times more.

        Parameters
        ----------
        call : callable
            May be repeated without harm.
        job_id : str or None
            What the call is about, for the message.

        Raises
        ------
        BackendError
            If it does not answer, or with an error that a repetition would not mend.
        """
        failures = 0
        while True:
            try:
                return call()
            except BackendError:
                raise
            except Exception as error:  # the client raises many kinds, of several libraries
                failures += 1
                if failures > self.retries or not is_transient(error):
                    raise self.unreachable(error, job_id) from None
            self.wait(failures)

    def wait(self, failures: int, at_least: float = 0.0) -> None:
        """Sleep longer with every failure, seconds; by half at most less, by chance."""
        pause = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)
        self._sleep(max(pause * self._rng.uniform(0.5, 1.0), at_least))

    def unreachable(self, error: Exception, job_id: str | None) -> BackendError:
        """Build the error of a service that does not answer."""
        what = "whether it accepted the job is not known" if job_id is None else f"job {job_id}"
        then = "it looks for the job first" if job_id is None else "it collects the job"
        return BackendError(
            f"{self.name} does not answer ({redacted(error)}); {what}",
            "a service that can be reached",
            f"start again once it can: {then}, which is not paid twice",
        )

    def refused(self, error: Exception) -> BackendError:
        """Build the error of a service that does not take a job."""
        return BackendError(
            f"{self.name} refused the job ({redacted(error)})",
            "circuits, options and an account that the backend takes",
            "change hardware.* or quantum.backend",
        )
