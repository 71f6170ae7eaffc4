"""IBM Quantum through qiskit-ibm-runtime: jobs alone, in a batch or in a session; fake too."""

from __future__ import annotations

import logging
from typing import Any

from core import HardwareSettings, derive_seed
from quantum.engines.devices.base import CANCELLED, ERROR, Job, Request, status_of
from quantum.engines.devices.retrying_client import is_session_closed, is_transient, redacted

_TAGGED_JOBS = 10
_log = logging.getLogger(__name__)


class IbmService:
    """A backend of IBM Quantum or a fake one, as jobs, a batch or a session.

    Parameters
    ----------
    backend : IBMBackend or FakeBackendV2
        Where circuits run.
    hardware : HardwareSettings
        Execution mode, mitigation, decoupling.
    seed : int
        Of a fake backend's shots: the same seed and draw give the same numbers.
    service : QiskitRuntimeService or None
        Where jobs are found again. None: the backend runs on this machine, and its jobs end with
        this process.
    """

    def __init__(
        self, backend: Any, hardware: HardwareSettings, seed: int, service: Any = None
    ) -> None:
        self.backend = backend
        self._hardware = hardware
        self._seed = seed
        self._service = service
        self._session: Any = None
        self._local_jobs: dict[str, Job] = {}

    @property
    def name(self) -> str:
        """The backend's name."""
        return str(self.backend.name)

    def submit(self, request: Request, tags: list[str]) -> Job:
        """Run the Estimator; a session or batch that has ended is opened again."""
        try:
            return self._run(request, tags)
        except Exception as error:
            if self._session is None or is_transient(error) or not is_session_closed(error):
                raise
            self._session = None
        return self._run(request, tags)

    def find(self, job_id: str) -> Job | None:
        """Return a job by its id."""
        if self._service is None:
            return self._local_jobs.get(job_id)
        from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

        try:
            job: Job = self._service.job(job_id)
        except RuntimeJobNotFound:
            return None
        return job

    def find_tagged(self, tag: str) -> Job | None:
        """Return the oldest job of a tag, one that has not failed before one that has."""
        if self._service is None:
            return None
        found: list[Any] = self._service.jobs(
            limit=_TAGGED_JOBS,
            job_tags=[tag],
            instance=getattr(self.backend, "_instance", None),
            descending=False,
        )
        ours = [job for job in found if tag in (job.tags or [])]
        alive = [job for job in ours if status_of(job) not in (ERROR, CANCELLED)]
        best: Job | None = next(iter([*alive, *ours]), None)
        return best

    def close(self) -> None:
        """End the session or batch: queued jobs still run, no more are taken."""
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.close()
        except Exception as error:  # it ends by itself, a little later
            _log.warning("The %s was not closed: %s", self._hardware.execution, redacted(error))

    def _run(self, request: Request, tags: list[str]) -> Job:
        from qiskit_ibm_runtime import EstimatorV2

        options = self._local_options(request) if self._service is None else self._options(tags)
        estimator = EstimatorV2(mode=self._mode(), options=options)
        job: Job = estimator.run(list(request.pubs), precision=request.precision)
        if self._service is None:
            self._local_jobs = {job.job_id(): job}  # one at a time: older ones were collected
        return job

    def _mode(self) -> Any:
        """Return what the Estimator runs in, opening a session or batch for the first job."""
        from qiskit_ibm_runtime import Batch, Session

        if self._hardware.execution == "job":
            return self.backend
        if self._session is None:
            kind = Batch if self._hardware.execution == "batch" else Session
            self._session = kind(backend=self.backend)
        return self._session

    def _options(self, tags: list[str]) -> dict[str, Any]:
        """Return the Estimator's options; what is not set stays at the service's default."""
        options: dict[str, Any] = {
            "resilience_level": self._hardware.resilience_level,
            "environment": {"job_tags": tags},
        }
        if self._hardware.twirling:
            options["twirling"] = {"enable_gates": True}
        if (sequence := self._hardware.dynamical_decoupling) != "none":
            options["dynamical_decoupling"] = {"enable": True, "sequence_type": sequence}
        return options

    def _local_options(self, request: Request) -> dict[str, Any]:
        """Return what a fake backend heeds: the seed; all else would only warn."""
        # Odd, for the local service takes a seed of 0 for none.
        seed = derive_seed(self._seed, "shots", request.draw or request.key) | 1
        return {"simulator": {"seed_simulator": seed}}
