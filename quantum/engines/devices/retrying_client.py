"""Calls to a service, repeated while it cannot be reached, and what its errors mean."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from core import BackendError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Back-off, seconds, before jitter."""

T = TypeVar("T")
LONGEST = 200
"""Most characters of a service's error text that we pass on."""
# Refused, but only for now: too many requests, too many pending jobs.
_REFUSED_FOR_NOW = re.compile(r"\berror code:? *(1012|1202|3458)\b", re.I)
_STATUS_IN_TEXT = re.compile(r"\b([45]\d\d) (?:Client|Server) Error\b")
# Raised by qiskit-ibm-runtime around an error of the network, without its cause.
_NETWORK_WORDS = re.compile(
    r"max retries exceeded|connection (?:aborted|refused|reset|error)|timed? ?out"
    r"|temporary failure|name resolution|maintenance mode",
    re.I,
)
# https://quantum.cloud.ibm.com/docs/errors: those whose advice is to run the job again.
_BACKENDS_OWN = re.compile(
    r"\berror code:? *(1000|1006|1008|1010|1011|4001|5203|5204|9\d\d\d)\b"
    r"|internal (?:server )?error|try again|please retry|temporar|unavailable|maintenance"
    r"|session .{0,40}closed",
    re.I,
)
_SESSION_CLOSED = re.compile(
    r"session .{0,40}(?:closed|not accepting|expired)|\berror code:? *(1217|4001)\b", re.I
)
_SECRETS = (
    # By name, in headers, parameters and JSON; and by scheme.
    (
        re.compile(
            r"\b((?:authorization|api[ _-]?key|(?:access_?)?token|password)['\"]?\s*[:=]\s*)"
            r"(?:(?:bearer|apikey|basic)\s+)?['\"]?[^\s'\",;)&]+",
            re.I,
        ),
        r"\1…",
    ),
    (re.compile(r"\b(bearer|apikey)\s+[^\s'\",;)&]+", re.I), r"\1 …"),
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]+"), r"\1?…"),
    (re.compile(r"(https?://)[^\s/@'\"]+@"), r"\1…@"),
    (re.compile(r"crn:[^\s'\",;)]+"), "crn:…"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]+)?"), "…"),
    # Anything as long as an API key; job ids are shorter.
    (re.compile(r"[\w-]{40,}"), "…"),
)


class RetryingClient:
    """Calls to one service, with back-off.

    Parameters
    ----------
    name : str
        The backend's name, for messages.
    retries : int
        Retries after a transient error.
    rng : np.random.Generator
        Jitter: nodes that failed together do not come back together.
    sleep : callable
        ``time.sleep``, or a test's.
    """

    def __init__(
        self, name: str, retries: int, rng: np.random.Generator, sleep: Callable[[float], object]
    ) -> None:
        self.name, self.retries = name, retries
        self._rng, self._sleep = rng, sleep

    def call(self, function: Callable[[], T], job_id: str | None) -> T:
        """Call the service until it answers, with at most `retries` retries.

        Parameters
        ----------
        function : callable
            May be repeated without harm.
        job_id : str or None
            What the call is about, for the message.

        Raises
        ------
        BackendError
            If it does not answer, or with an error that a repetition would not help.
        """
        failures = 0
        while True:
            try:
                return function()
            except BackendError:
                raise
            except Exception as error:  # the client raises many kinds, of several libraries
                failures += 1
                if failures > self.retries or not is_transient(error):
                    raise self.unreachable(error, job_id) from None
            self.wait(failures)

    def wait(self, failures: int, at_least: float = 0.0) -> None:
        """Sleep longer with every failure, seconds; by chance up to half less."""
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


def redacted(error: object) -> str:
    """Return what an error of the service says, fit for messages, logs and results.

    One line of at most 200 characters, without tokens, authorisation headers, query strings or
    the account's instance.

    Parameters
    ----------
    error : object
        An exception, or a text of the service.

    Returns
    -------
    str
        Its text; its class if it says nothing.
    """
    text = str(error)
    if "Traceback" in text:  # the last line says what, those above where in IBM's code
        text = text.strip().splitlines()[-1]
    for secret in _known_secrets():
        text = text.replace(secret, "…")
    text = " ".join(text.split())
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text.strip("'\"")[:LONGEST] or type(error).__name__


def _known_secrets() -> list[str]:
    """Return the tokens that this machine could have sent: of the environment, of saved accounts.

    Read when an error is reported, so that no copy of a token is kept in our memory.
    """
    found = [os.environ.get("QISKIT_IBM_TOKEN", "")]
    path = Path("~/.qiskit/qiskit-ibm.json").expanduser()
    try:
        accounts = json.loads(path.read_text(encoding="utf-8"))
        found += [str(account.get("token", "")) for account in accounts.values()]
    except (OSError, ValueError, AttributeError):
        pass
    secrets = {part for secret in found for part in (secret, secret.strip(), repr(secret)[1:-1])}
    return sorted((s for s in secrets if len(s) > 3), key=len, reverse=True)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later.

    Lost connections, timeouts, HTTP 408, 425, 429 and 5xx, and what qiskit-ibm-runtime wraps
    them in.
    """
    for link in _chain(error):
        code = _status_code(link)
        if _REFUSED_FOR_NOW.search(str(link)) or (
            _is_network(link) if code is None else _is_temporary(code)
        ):
            return True
    return False


def is_refused_for_now(error: BaseException) -> bool:
    """Whether a transient error says for sure that a submitted job was not accepted."""
    return any(
        _status_code(link) == 429 or _REFUSED_FOR_NOW.search(str(link)) for link in _chain(error)
    )


def is_session_closed(error: BaseException) -> bool:
    """Whether a job was refused because its session or batch has ended."""
    return bool(_SESSION_CLOSED.search(str(error)))


def is_backends_own(reason: str) -> bool:
    """Whether a job's reason of failure is the backend's, not ours: worth a second job."""
    return bool(_BACKENDS_OWN.search(reason))


def _is_temporary(code: int) -> bool:
    return code in (408, 425, 429) or code >= 500


def _is_network(error: BaseException) -> bool:
    """Whether an error without an HTTP status is one of the network, or unknown to the client."""
    from qiskit.providers.exceptions import JobTimeoutError
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError
    from qiskit_ibm_runtime.exceptions import IBMBackendApiError, IBMRuntimeError
    from requests import exceptions as http
    from urllib3.exceptions import HTTPError

    network = (http.ConnectionError, http.Timeout, http.RetryError, http.ChunkedEncodingError)
    unknown = (RequestsApiError, IBMBackendApiError)
    own = (ConnectionError, TimeoutError, HTTPError, JobTimeoutError)
    if isinstance(error, (*network, *unknown, *own)):
        return True
    return isinstance(error, IBMRuntimeError) and bool(_NETWORK_WORDS.search(str(error)))


def _status_code(error: BaseException) -> int | None:
    """Return the HTTP status in an error, if it carries one."""
    response = getattr(error, "response", None)
    for value in (getattr(error, "status_code", None), getattr(response, "status_code", None)):
        if isinstance(value, int) and value > 0:
            return value
    found = _STATUS_IN_TEXT.search(str(error))
    return int(found[1]) if found else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from or while handling.

    qiskit-ibm-runtime raises its own ``from None``: the cause is not in tracebacks.
    A refusal (HTTP 4xx) ends the chain: what came before it was overcome.
    """
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        code = _status_code(seen)
        if code is not None and not _is_temporary(code):
            return
        seen = seen.__cause__ or seen.__context__
