"""IBM Quantum through qiskit-ibm-runtime: account, backends, jobs; fake backends the same way.

Credentials are those saved by qiskit-ibm-runtime or of its environment variables. We neither
take, keep nor show them: every text of the service passes `failures.redacted`.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from typing import Any

from core import BackendError, HardwareSettings, derive_seed
from quantum.engines.devices.contract import CANCELLED, ERROR, Job, Request
from quantum.engines.devices.jobs import status_of
from quantum.engines.devices.retrying_client import is_session_closed, is_transient, redacted

LEAST_BUSY = "least_busy"
TODAYS = "marrakesh"  # a Heron of 156 qubits: for estimates of a device without a snapshot
SAVE = (
    "QiskitRuntimeService.save_account(channel='ibm_quantum_platform', token=<API key>, "
    "instance=<CRN>)"
)
_TAGGED_JOBS = 10

_log = logging.getLogger(__name__)


def connect(account: str = "") -> Any:
    """Connect to IBM Quantum.

    Parameters
    ----------
    account : str
        Name of an account saved by qiskit-ibm-runtime; empty: the environment's
        (``QISKIT_IBM_TOKEN``, ``QISKIT_IBM_INSTANCE``, ...), else the default saved one.

    Returns
    -------
    QiskitRuntimeService

    Raises
    ------
    BackendError
        If there is no such account, it is not valid, or IBM cannot be reached.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError

    try:
        return QiskitRuntimeService(name=account or None)
    except AccountNotFoundError:
        raise _no_account(account) from None
    except Exception as error:  # the client raises many kinds, of several libraries
        if is_transient(error):
            what, fix = "IBM Quantum cannot be reached", "check the network and start again"
        else:
            what = "IBM Quantum does not take this machine's account"
            fix = f"save a valid one with {SAVE} (see docs/backends.md)"
        raise BackendError(
            f"{what} ({redacted(error)})", "a valid account and a way to cloud.ibm.com", fix
        ) from None


class NoAccountError(BackendError):
    """No account of IBM Quantum is saved on this machine."""


def _no_account(account: str) -> NoAccountError:
    if account:
        given = f"hardware.account = {account!r}, no account of this name is saved on this machine"
        accepted = _saved_accounts() or "none is saved"
    else:
        given = "no IBM Quantum account is saved on this machine"
        accepted = "one saved by qiskit-ibm-runtime, or its environment variable QISKIT_IBM_TOKEN"
    return NoAccountError(given, accepted, f"save one with {SAVE} (see docs/backends.md)")


def _saved_accounts() -> str:
    """Return the names, and only the names, of the saved accounts."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    with contextlib.suppress(Exception):  # an unreadable file has no names to offer
        return ", ".join(sorted(QiskitRuntimeService.saved_accounts()))
    return ""


def pick_backend(service: Any, name: str, qubits: int, kind: str = "ibm") -> Any:
    """Return a backend of IBM Quantum.

    Parameters
    ----------
    service : QiskitRuntimeService
        As `connect` returns it.
    name : str
        A backend's name, with or without ``ibm_``; or ``least_busy``.
    qubits : int
        How many the circuit needs.
    kind : str
        What stands before the name in `quantum.backend`, for messages.

    Returns
    -------
    IBMBackend

    Raises
    ------
    BackendError
        If there is no such backend, it is too small or out of order, or IBM cannot be reached.
    """
    try:
        backend = (
            service.least_busy(min_num_qubits=qubits)
            if name == LEAST_BUSY
            else _named_backend(service, name)
        )
        if backend is None:
            raise _no_backend(service, name, qubits)
        size, operational = int(backend.num_qubits), bool(backend.status().operational)
    except BackendError:
        raise
    except Exception as error:  # the client raises many kinds, of several libraries
        if _is_not_found(error):
            raise _no_backend(service, name, qubits) from None
        raise BackendError(
            f"quantum.backend = '{kind}:{name}' cannot be opened ({redacted(error)})",
            "a backend that the account may use, and a way to cloud.ibm.com",
            "start again, or change quantum.backend",
        ) from None
    _check_size(f"{kind}:{name}", size, qubits)
    if not operational:
        raise BackendError(
            f"quantum.backend = '{kind}:{name}', {backend.name} is out of operation now",
            _offered(service) or "a backend in operation",
            "choose another, ibm:least_busy, or wait",
        )
    return backend


def _named_backend(service: Any, name: str) -> Any:
    """Return the backend of a name, or None."""
    for spelling in dict.fromkeys((name, name if name.startswith("ibm_") else f"ibm_{name}")):
        try:
            return service.backend(spelling)
        except Exception as error:
            if not _is_not_found(error):
                raise
    return None


def _is_not_found(error: Exception) -> bool:
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    return isinstance(error, QiskitBackendNotFoundError)


def _no_backend(service: Any, name: str, qubits: int) -> BackendError:
    what = (
        f"the account has none in operation of {qubits} qubits"
        if name == LEAST_BUSY
        else "the account has no such backend"
    )
    if not (offered := _offered(service)):  # the client takes a dead line for an empty account
        what += ", or IBM Quantum cannot be reached"
    return BackendError(
        f"quantum.backend = 'ibm:{name}', {what}",
        offered or "a backend of the account",
        "change quantum.backend",
    )


def _offered(service: Any) -> str:
    """Return a few backends of the account, in words."""
    with contextlib.suppress(Exception):  # only a help: the error itself matters more
        found = sorted(service.backends(), key=lambda backend: str(backend.name))
        return ", ".join(f"ibm:{b.name} ({b.num_qubits} qubits)" for b in found[:5])
    return ""


def _check_size(backend: str, size: int, qubits: int) -> None:
    if size < qubits:
        raise BackendError(
            f"quantum.backend = {backend!r} has {size} qubits and the circuit needs {qubits}",
            f"a backend of at least {qubits} qubits",
            "change quantum.backend or lower quantum.qubits",
        )


def fake_backend(name: str, qubits: int = 1, kind: str = "fake") -> Any:
    """Return a snapshot of an IBM backend, simulated on this machine.

    Parameters
    ----------
    name : str
        In any usual spelling: ``manila``, ``fake_manila``, ``FakeManilaV2``, ``ibm_manila``.
    qubits : int
        How many the circuit needs.
    kind : str
        What stands before the name in `quantum.backend`, for messages.

    Returns
    -------
    FakeBackendV2

    Raises
    ------
    BackendError
        If there is no such snapshot, or it is too small.
    """
    known = _snapshots()
    if (wanted := _plain(name)) not in known:
        near = difflib.get_close_matches(wanted, known, n=3) or sorted(known)[:3]
        raise BackendError(
            f"quantum.backend = '{kind}:{name}', there is no such snapshot",
            f"one of {len(known)}, for instance " + ", ".join(f"{kind}:{n}" for n in near),
            "change quantum.backend",
        )
    backend = known[wanted]()
    _check_size(f"{kind}:{name}", int(backend.num_qubits), qubits)
    return backend


def stand_in(name: str, qubits: int, kind: str) -> Any:
    """Return a snapshot for estimates of a named device: its own, or of one like today's."""
    return fake_backend(name if _plain(name) in _snapshots() else TODAYS, qubits, kind)


def _snapshots() -> dict[str, Any]:
    """Return the classes of all snapshots by plain name.

    Not their provider: that one opens all sixty, and warns about some.
    """
    from qiskit_ibm_runtime.fake_provider import backends

    kinds: list[Any] = list(vars(backends).values())
    return {
        _plain(kind.backend_name): kind
        for kind in kinds
        if isinstance(getattr(kind, "backend_name", None), str)
    }


def _plain(name: str) -> str:
    """Return a fake backend's name without what people write around it."""
    plain = name.strip().lower().replace("-", "_")
    plain = plain.removeprefix("fake").strip("_").removeprefix("ibmq_").removeprefix("ibm_")
    return plain.removesuffix("v2").strip("_")


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
        """Run the Estimator; a session or batch that has ended is opened anew."""
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
        """Return the Estimator's options; what is not asked for stays at the service's default."""
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
