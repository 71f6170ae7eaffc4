"""The job book: which jobs were asked of which backend, kept where a restart finds them.

One SQLite file for all processes of a site. A job is written down before it is submitted and its
id before anyone waits for it, so a process that dies leaves nothing unpaid-for unknown:

``intended`` (about to be submitted; nobody knows whether it was) -> ``submitted`` (has an id) ->
``collected`` | ``failed`` | ``cancelled``.

Values tell of private data: the file and its folder are their owner's alone.
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
from typing import Any

import numpy as np

from core import BackendError
from quantum.engines.base import Usage
from quantum.engines.devices.contract import attempt_key

FORMAT = 1
INTENDED, SUBMITTED, COLLECTED = "intended", "submitted", "collected"
FAILED, CANCELLED = "failed", "cancelled"
OPEN = (INTENDED, SUBMITTED)

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, label TEXT NOT NULL, backend TEXT NOT NULL,
    job_id TEXT, status TEXT NOT NULL, circuits INTEGER NOT NULL, shots INTEGER NOT NULL,
    "values" BLOB, qpu_estimate REAL NOT NULL, qpu_seconds REAL, queue_seconds REAL NOT NULL,
    reason TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (run)"
_COLUMNS = (
    'key, run, label, backend, job_id, status, circuits, shots, "values", '
    "COALESCE(qpu_seconds, qpu_estimate), queue_seconds, reason, created, updated"
)


@dataclass(frozen=True)
class Entry:
    """One job in the book.

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
        QPU seconds are the estimate until the service has told.
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


class JobBook:
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
        From every method, if the file is no job book, is damaged, cannot be written, or stays
        locked.
    """

    def __init__(self, path: Path | None, patience: float = 30.0) -> None:
        self.path = None if path is None else path.expanduser()
        self._patience = patience
        self._kept = None
        if self.path is None:
            self._kept = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._kept.close)
        with self._connection() as connection:
            self._prepare(connection)

    def find(self, key: str) -> Entry | None:
        """Return the job of a key, or None."""
        with self._connection() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else self._entry(row)

    def attempts(self, key: str) -> list[Entry]:
        """Return all attempts at a job, first to last: those of ``key``, ``key#2``, ..."""
        found: list[Entry] = []
        while entry := self.find(attempt_key(key, len(found) + 1)):
            found.append(entry)
        return found

    def intend(
        self,
        key: str,
        *,
        run: str,
        label: str,
        backend: str,
        circuits: int,
        shots: int,
        qpu_estimate: float = 0.0,
    ) -> None:
        """Write down that a job is about to be submitted.

        A key may be intended again as long as no job of it was accepted.
        """
        now = _now()
        self._write(
            key,
            "INSERT INTO jobs VALUES (?, ?, ?, ?, NULL, ?, ?, ?, NULL, ?, NULL, 0, '', ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET status = excluded.status, reason = '', "
            "backend = excluded.backend, updated = excluded.updated WHERE jobs.job_id IS NULL",
            (key, run, label, backend, INTENDED, circuits, shots, qpu_estimate, now, now),
        )

    def submitted(self, key: str, job_id: str) -> None:
        """Write down the id of an accepted job."""
        self._update(key, "status = ?, job_id = ?", (SUBMITTED, job_id))

    def collected(self, key: str, values: Sequence[np.ndarray], usage: Usage) -> None:
        """Keep a job's values (one array a pub) and what it cost."""
        self._update(
            key,
            'status = ?, "values" = ?, qpu_seconds = ?, queue_seconds = ?',
            (COLLECTED, _packed(values), usage.qpu_seconds, usage.queue_seconds),
        )

    def failed(self, key: str, reason: str, usage: Usage | None = None) -> None:
        """Write down why there will be no values; usage None: the estimate stands."""
        self._ended(key, FAILED, reason, usage)

    def cancelled(self, key: str, reason: str = "", usage: Usage | None = None) -> None:
        """Write down that a job was cancelled; usage None: the estimate stands."""
        self._ended(key, CANCELLED, reason, usage)

    def open_jobs(self, run: str | None = None) -> list[Entry]:
        """Return the jobs that may still run or wait to be collected, of one run or of all."""
        with self._connection() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE status IN (?, ?) AND (? IS NULL OR run = ?) "
                "ORDER BY rowid",
                (*OPEN, run, run),
            ).fetchall()
        return [self._entry(row) for row in rows]

    def spent(self, run: str, besides: str = "") -> Usage:
        """Return what a run has submitted, whether collected or not.

        A job whose acceptance is unknown counts, and QPU seconds that the service has not told
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
        handle = self._locked(lock)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(handle)

    def _locked(self, lock: Path) -> int:
        """Open and lock a file; again if its holder unlinked it meanwhile."""
        import fcntl

        while True:
            try:
                handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE)
            except OSError as error:
                raise self._unusable(error) from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_ino == lock.stat().st_ino:
                    return handle
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise self._unusable(f"it is of format {version}")
        if version == 0:
            # On file systems without shared memory SQLite stays with its rollback journal.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute(_INDEX)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the book for one statement: nothing to carry over a fork or between threads."""
        try:
            if self.path is None:
                assert self._kept is not None
                yield self._kept
                return
            self._make_private(self.path)
            with contextlib.closing(
                sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = FULL")  # an id survives a power cut
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    @staticmethod
    def _make_private(path: Path) -> None:
        if path.exists():
            return
        for folder in [p for p in reversed(path.parents) if not p.exists()]:
            folder.mkdir(_FOLDER_MODE, exist_ok=True)
        # SQLite gives its side files the mode of the main one.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, _FILE_MODE))

    def _write(self, key: str, statement: str, values: tuple[object, ...]) -> None:
        with self._connection() as connection:
            changed = connection.execute(statement, values).rowcount
        if changed != 1:
            raise self._unusable(f"its entry {key!r} is not as we left it")

    def _update(self, key: str, what: str, values: tuple[object, ...]) -> None:
        self._write(
            key, f"UPDATE jobs SET {what}, updated = ? WHERE key = ?", (*values, _now(), key)
        )

    def _ended(self, key: str, status: str, reason: str, usage: Usage | None) -> None:
        told = (None, 0.0) if usage is None else (usage.qpu_seconds, usage.queue_seconds)
        self._update(
            key,
            "status = ?, reason = ?, qpu_seconds = ?, queue_seconds = ?",
            (status, reason, *told),
        )

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        try:
            values = None if row[8] is None else _unpacked(row[8])
        except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise self._unusable(f"the values of {row[0]!r} are damaged: {error}") from None
        return Entry(*(*row[:8], values, *row[9:]))

    def _unusable(self, why: object) -> BackendError:
        return BackendError(
            f"the job book {str(self.path)!r} cannot be used ({why})",
            "a job book of this version, that this user can write and nothing else locks",
            "mend or move it; jobs in it that still run are then yours to cancel at IBM",
        )


def _packed(values: Sequence[np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *[np.asarray(value, dtype=np.float64) for value in values])
    return buffer.getvalue()


def _unpacked(packed: bytes) -> list[np.ndarray]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
