"""The job store: which jobs were requested of which backend, kept where a restart finds them.

One SQLite file for all processes of a site. A job is recorded before it is submitted, and its id
before anyone waits for it, so a process that dies leaves no paid job unknown:

``intended`` (about to be submitted; nobody knows whether it was) -> ``submitted`` (has an id) ->
``collected`` | ``failed`` | ``cancelled``.

Values reveal private data: only their owner can read the file and its folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import BackendError
from quantum.engines.base import Usage
from quantum.engines.devices.base import Request, attempt_key

FORMAT = 1
INTENDED, SUBMITTED, COLLECTED = "intended", "submitted", "collected"
OPEN = (INTENDED, SUBMITTED)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, label TEXT NOT NULL, backend TEXT NOT NULL,
    job_id TEXT, status TEXT NOT NULL, circuits INTEGER NOT NULL, shots INTEGER NOT NULL,
    "values" BLOB, qpu_estimate REAL NOT NULL, qpu_seconds REAL, queue_seconds REAL NOT NULL,
    reason TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run)"
_SELECT = (
    'SELECT key, run, label, backend, job_id, status, circuits, shots, "values", '
    "COALESCE(qpu_seconds, qpu_estimate), queue_seconds, reason, created, updated FROM jobs "
)


@dataclass(frozen=True)
class RecordedJob:
    """One job in the store.

    Attributes
    ----------
    key, run, label, backend : str
        As intended.
    job_id : str or None
        The service's name; None: not accepted, as far as known.
    status : str
        ``intended``, ``submitted``, ``collected``, ``failed`` or ``cancelled``.
    circuits, shots : int
        What it executes.
    values : list of np.ndarray or None
        float64, one of the pub's shape each; None until collected.
    qpu_seconds, queue_seconds : float
        QPU seconds are the estimate until the service has reported them.
    reason : str
        Why it failed.
    created, updated : str
        ISO 8601, UTC.
    """

    key: str
    run: str
    label: str
    backend: str
    job_id: str | None
    status: str
    circuits: int
    shots: int
    values: list[np.ndarray] | None
    qpu_seconds: float
    queue_seconds: float
    reason: str
    created: str
    updated: str

    @property
    def usage(self) -> Usage:
        """What it cost; nothing if it was never accepted."""
        if self.job_id is None:
            return Usage()
        return Usage(1, self.circuits, self.shots, self.qpu_seconds, self.queue_seconds)


class JobStore:
    """The jobs of a site.

    Parameters
    ----------
    path : Path or None
        The file; made if absent, with its folder. None: in memory, for services whose jobs end
        with the process.
    patience : float
        Seconds to wait for another process's write.

    Raises
    ------
    BackendError
        From every method, if the file is no job store, is damaged, cannot be written, or stays
        locked.
    """

    def __init__(self, path: Path | None, patience: float = 30.0) -> None:
        self.path = None if path is None else path.expanduser()
        self._patience = patience
        self._memory = None
        if self.path is None:
            self._memory = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, self._memory.close)
        with self._connection() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT):
                raise self._unusable(f"it is of format {version}")
            if version == 0:
                # On file systems without shared memory SQLite stays with its rollback journal.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(_INDEX)

    def find(self, key: str) -> RecordedJob | None:
        """Return the job of a key, or None."""
        return next(iter(self._select("WHERE key = ?", key)), None)

    def attempts(self, key: str) -> list[RecordedJob]:
        """Return all attempts at a job, first to last: those of ``key``, ``key#2``, ..."""
        found: list[RecordedJob] = []
        while job := self.find(attempt_key(key, len(found) + 1)):
            found.append(job)
        return found

    def open_jobs(self, run: str | None = None) -> list[RecordedJob]:
        """Return the jobs that may still run or wait to be collected, of one run or of all."""
        where = "WHERE status IN (?, ?) AND (? IS NULL OR run = ?) ORDER BY rowid"
        return self._select(where, *OPEN, run, run)

    def record_intent(self, key: str, request: Request, backend: str) -> None:
        """Record that a request is about to be submitted under a key.

        The same key may be recorded again as long as no job of it was accepted.
        """
        now, costs = _now(), (request.circuits, request.shots, request.qpu_estimate)
        self._write(
            key,
            "INSERT INTO jobs VALUES (?, ?, ?, ?, NULL, ?, ?, ?, NULL, ?, NULL, 0, '', ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET status = excluded.status, reason = '', "
            "backend = excluded.backend, updated = excluded.updated WHERE jobs.job_id IS NULL",
            (key, request.run, request.label, backend, INTENDED, *costs, now, now),
        )

    def record_id(self, key: str, job_id: str) -> None:
        """Record the id of an accepted job."""
        self._update(key, status=SUBMITTED, job_id=job_id)

    def record_values(
        self, key: str, values: Sequence[np.ndarray], qpu_seconds: float, queue_seconds: float
    ) -> None:
        """Record a job's values (one array a pub) and its seconds."""
        packed = io.BytesIO()
        np.savez(packed, *[np.asarray(value, dtype=np.float64) for value in values])
        seconds = {"qpu_seconds": qpu_seconds, "queue_seconds": queue_seconds}
        self._update(key, status=COLLECTED, values=packed.getvalue(), **seconds)

    def record_end(
        self,
        key: str,
        status: Literal["failed", "cancelled"],
        reason: str,
        qpu_seconds: float | None = None,
        queue_seconds: float = 0.0,
    ) -> None:
        """Record why there will be no values; QPU seconds None: the estimate stands."""
        seconds = {"qpu_seconds": qpu_seconds, "queue_seconds": queue_seconds}
        self._update(key, status=status, reason=reason, **seconds)

    def spent(self, run: str, besides: str = "") -> Usage:
        """Return what a run has submitted, whether collected or not.

        A job whose acceptance is unknown counts, and QPU seconds that the service has not reported
        count as estimated.

        Parameters
        ----------
        run : str
            The node in the run.
        besides : str
            Key of a job that is not counted: the one about to be submitted.
        """
        with self._connection() as connection:
            row = connection.execute(
                "SELECT COUNT(*), SUM(circuits), SUM(shots), "
                "SUM(COALESCE(qpu_seconds, qpu_estimate)), SUM(queue_seconds) "
                "FROM jobs WHERE run = ? AND (job_id IS NOT NULL OR status = ?) AND key != ?",
                (run, INTENDED, besides),
            ).fetchone()
        return Usage(*(value or 0 for value in row[:3]), *(float(value or 0) for value in row[3:]))

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold a key: another thread or process that wants the same job waits for its values.

        The lock is the operating system's and ends with the process, however it ends.
        """
        if self.path is None:
            yield
            return
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        lock = self.path.with_name(f"{self.path.name}.{name}.lock")
        handle = self._lock(lock)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(handle)

    def _lock(self, path: Path) -> int:
        """Open and lock a file; again if its holder has unlinked it meanwhile."""
        import fcntl

        while True:
            try:
                handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._unusable(error) from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_ino == path.stat().st_ino:
                    return handle
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the store for one statement: nothing to carry over a fork or between threads."""
        try:
            if self._memory is not None or self.path is None:
                assert self._memory is not None
                yield self._memory
                return
            if not self.path.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # SQLite gives its side files the mode of the main one.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with contextlib.closing(
                sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = FULL")  # an id survives a power cut
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def _select(self, where: str, *values: object) -> list[RecordedJob]:
        with self._connection() as connection:
            rows = connection.execute(_SELECT + where, values).fetchall()
        return [self._job(row) for row in rows]

    def _job(self, row: tuple[Any, ...]) -> RecordedJob:
        values = None
        try:
            if row[8] is not None:
                with np.load(io.BytesIO(row[8]), allow_pickle=False) as arrays:
                    values = [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
        except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise self._unusable(f"the values of {row[0]!r} are damaged: {error}") from None
        return RecordedJob(*(*row[:8], values, *row[9:]))

    def _write(self, key: str, statement: str, values: tuple[object, ...]) -> None:
        with self._connection() as connection:
            changed = connection.execute(statement, values).rowcount
        if changed != 1:
            raise self._unusable(f"its entry {key!r} is not as we left it")

    def _update(self, key: str, **values: object) -> None:
        columns = ", ".join(f'"{name}" = ?' for name in values)
        statement = f"UPDATE jobs SET {columns}, updated = ? WHERE key = ?"
        self._write(key, statement, (*values.values(), _now(), key))

    def _unusable(self, why: object) -> BackendError:
        return BackendError(
            f"the job store {str(self.path)!r} cannot be used ({why})",
            "a job store of this version, that this user can write and nothing else locks",
            "repair or move it; jobs in it that still run are then yours to cancel at IBM",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
