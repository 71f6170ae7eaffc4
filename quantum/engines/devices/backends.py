"""Finding the Qiskit backend behind a name: IBM Quantum's, a snapshot of one, or Aer's simulator.

Credentials are those saved by qiskit-ibm-runtime or of its environment variables. We neither
take, store nor show them: every text of the service passes `retrying_client.redacted`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
from typing import TYPE_CHECKING, Any

from core import BackendError, write_text
from quantum.circuit import Circuit
from quantum.engines.devices.retrying_client import is_transient, redacted

if TYPE_CHECKING:
    from core import QuantumSettings
    from quantum.engines.base import Host

LEAST_BUSY = "least_busy"
STAND_IN = "marrakesh"  # a Heron of 156 qubits: for estimates of a device without a snapshot
SAVE = (
    "QiskitRuntimeService.save_account(channel='ibm_quantum_platform', token=<API key>, "
    "instance=<CRN>)"
)


def check_device(ansatz: Circuit, settings: QuantumSettings, host: Host) -> None:
    """Refuse a device that cannot be opened here, or a store that cannot be written.

    Raises
    ------
    BackendError
        If there is no such backend, no account, too few qubits, or no store.
    """
    make_store(host)
    find_backend(settings.backend, host.hardware.account, ansatz.n_qubits, host)


def find_backend(name: str, account: str, qubits: int, host: Host) -> tuple[Any, Any]:
    """Return the Qiskit backend behind a name of `quantum.backend`, and IBM's service or None.

    What ``least_busy`` found stays the backend of the run: another one in the next process would
    not know the jobs of this one.

    Raises
    ------
    BackendError
        If there is none, no account to reach it, or it has too few qubits.
    """
    kind, _, device = name.partition(":")
    if name == "aer":
        from qiskit_aer import AerSimulator

        return AerSimulator(), None
    if kind == "ibm" or (kind == "aer" and device.startswith("ibm_")):
        try:
            service = connect(account)
        except NoAccountError:
            if not host.estimate or device == LEAST_BUSY:
                raise
            return stand_in(device, qubits, kind), None
        if device != LEAST_BUSY or not host.run:
            return pick_backend(service, device, qubits, kind), service
        note = host.store / "least-busy" / hashlib.sha256(host.run.encode()).hexdigest()[:24]
        chosen = note.read_text(encoding="utf-8") if note.is_file() else device
        backend = pick_backend(service, chosen, qubits)
        write_text(note, str(backend.name))
        return backend, service
    return fake_backend(device, qubits, kind), None


def make_store(host: Host) -> None:
    """Make the site's store, which its owner alone may enter: the job store is in it.

    Raises
    ------
    BackendError
        If it cannot be made.
    """
    try:
        host.store.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(host, error) from None


def unusable(host: Host, error: OSError) -> BackendError:
    """Build the error of a store that cannot be used."""
    return BackendError(
        f"the site's store {str(host.store)!r} cannot be used ({error.strerror or error})",
        "a folder that can be written",
        "change llm.store or LLM_QFL_HOME",
    )


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
    from qiskit_ibm_runtime import QiskitRuntimeService

    given = "no IBM Quantum account is saved on this machine"
    accepted = "one saved by qiskit-ibm-runtime, or its environment variable QISKIT_IBM_TOKEN"
    if account:
        given = f"hardware.account = {account!r}, no account of this name is saved on this machine"
        accepted = "none is saved"
        with contextlib.suppress(Exception):  # an unreadable file has no names to offer
            accepted = ", ".join(sorted(QiskitRuntimeService.saved_accounts())) or accepted
    return NoAccountError(given, accepted, f"save one with {SAVE} (see docs/backends.md)")


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
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    try:
        backend = _open_backend(service, name, qubits)
        size, operational = int(backend.num_qubits), bool(backend.status().operational)
    except QiskitBackendNotFoundError:
        raise _no_backend(service, name, qubits) from None
    except Exception as error:  # the client raises many kinds, of several libraries
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


def _open_backend(service: Any, name: str, qubits: int) -> Any:
    """Return the backend of a name, with or without ``ibm_``, or the least busy one."""
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    if name == LEAST_BUSY:
        return service.least_busy(min_num_qubits=qubits)
    try:
        return service.backend(name)
    except QiskitBackendNotFoundError:
        if name.startswith("ibm_"):
            raise
    return service.backend(f"ibm_{name}")


def _no_backend(service: Any, name: str, qubits: int) -> BackendError:
    what = (
        f"the account has none in operation of {qubits} qubits"
        if name == LEAST_BUSY
        else "the account has no such backend"
    )
    if not (
        offered := _offered(service)
    ):  # the client takes a lost connection for an empty account
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
    return fake_backend(name if _plain(name) in _snapshots() else STAND_IN, qubits, kind)


def _snapshots() -> dict[str, Any]:
    """Return the classes of all snapshots by plain name.

    Not their provider: that one opens all sixty, and warns about some.
    """
    from qiskit_ibm_runtime.fake_provider import backends

    found: list[Any] = list(vars(backends).values())
    named = [kind for kind in found if isinstance(getattr(kind, "backend_name", None), str)]
    return {_plain(kind.backend_name): kind for kind in named}


def _plain(name: str) -> str:
    """Return a fake backend's name without what people write around it."""
    plain = name.strip().lower().replace("-", "_")
    plain = plain.removeprefix("fake").strip("_").removeprefix("ibmq_").removeprefix("ibm_")
    return plain.removesuffix("v2").strip("_")
