"""The job store is private, durable, shared by processes, and clear about what is wrong."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from core import BackendError
from quantum.engines.base import Usage
from quantum.engines.devices.base import Request
from quantum.engines.devices.job_store import JobStore


def request(key: str = "k", run: str = "run-1") -> Request:
    return Request((), 1.0, key, run, "round 1", 2, 100, qpu_estimate=4.0)


def intend(store: JobStore, key: str, run: str = "run-1") -> None:
    store.record_intent(key, request(key, run), "b")


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "site" / "jobs.sqlite")


def test_a_job_is_read_back_as_it_was_written_by_another_store_on_the_file(store: JobStore) -> None:
    values = [np.array([[0.5, -0.25]]), np.array(1.0)]
    intend(store, "k")
    store.record_id("k", "job-1")
    store.record_values("k", values, 3.5, 7.0)
    assert store.path is not None
    entry = JobStore(store.path).find("k")
    assert entry is not None
    assert entry.values is not None
    assert (entry.status, entry.job_id, entry.label) == ("collected", "job-1", "round 1")
    assert [v.tolist() for v in entry.values] == [[[0.5, -0.25]], 1.0]
    assert [v.dtype for v in entry.values] == [np.float64, np.float64]
    assert entry.usage == Usage(1, 2, 100, 3.5, 7.0)
    assert entry.created <= entry.updated
    assert store.find("other") is None


def test_file_side_files_and_folder_are_their_owners_alone(store: JobStore) -> None:
    assert store.path is not None
    with sqlite3.connect(store.path) as held:  # keeps the write-ahead log in being
        held.execute("SELECT * FROM jobs").fetchall()
        intend(store, "k")
        files = list(store.path.parent.iterdir())
        assert {f.name for f in files} == {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"}
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    held.close()
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_spent_counts_what_was_or_may_have_been_accepted(store: JobStore) -> None:
    for key in ("collected", "waiting", "failed", "cancelled", "intended"):
        intend(store, key)
    intend(store, "another run's", run="run-2")
    for key in ("collected", "waiting", "failed", "cancelled", "another run's"):
        store.record_id(key, f"job of {key}")
    store.record_values("collected", [], 1.0, 10.0)
    store.record_end("failed", "failed", "broken", 0.5, 0.0)
    store.record_end("cancelled", "cancelled", "")
    # Waiting and cancelled: 4 s each as estimated, until the service reports them.
    reported = Usage(4, 8, 400, 1.0 + 0.5 + 4.0 + 4.0, 10.0)
    assert store.spent("run-1", besides="intended") == reported
    assert store.spent("run-1") == reported + Usage(1, 2, 100, 4.0)  # perhaps accepted: it counts
    assert store.spent("run-3") == Usage()
    assert [e.key for e in store.open_jobs("run-1")] == ["waiting", "intended"]
    assert len(store.open_jobs()) == 3


def test_a_key_is_intended_again_only_while_no_job_of_it_was_accepted(store: JobStore) -> None:
    intend(store, "k")
    store.record_end("k", "failed", "refused")
    intend(store, "k")
    entry = store.find("k")
    assert entry is not None
    assert (entry.status, entry.reason) == ("intended", "")
    store.record_id("k", "job-1")
    with pytest.raises(BackendError, match="'k' is not as we left it"):
        intend(store, "k")
    with pytest.raises(BackendError, match="'unknown' is not as we left it"):
        store.record_id("unknown", "job-1")


def test_attempts_are_numbered(store: JobStore) -> None:
    for key in ("k", "k#2", "k#3", "k#5"):
        intend(store, key)
    assert [e.key for e in store.attempts("k")] == ["k", "k#2", "k#3"]


def spoil_header(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to have a header" * 20)


def spoil_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def spoil_table(path: Path) -> None:
    path.unlink()


def spoil_values(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("""UPDATE jobs SET "values" = 'no archive'""")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_header, "file is not a database"),
        (spoil_table, "no such table"),
        (spoil_values, "the values of 'k' are damaged"),
    ],
)
def test_a_damaged_store_is_one_clear_line(store: JobStore, spoil: object, why: str) -> None:
    intend(store, "k")
    assert store.path is not None
    assert callable(spoil)
    spoil(store.path)
    with pytest.raises(BackendError, match=f"cannot be used \\({why}.*; accepted: .*; ") as raised:
        store.find("k")
    assert "\n" not in str(raised.value)
    assert str(store.path) in str(raised.value)


def test_a_store_of_a_later_version_is_left_alone(store: JobStore) -> None:
    assert store.path is not None
    spoil_version(store.path)
    with pytest.raises(BackendError, match="it is of format 99"):
        JobStore(store.path)


def test_a_store_that_cannot_be_written_or_stays_locked_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot be used"):
        JobStore(tmp_path / "file" / "jobs.sqlite")
    with pytest.raises(BackendError, match="cannot be used"):
        JobStore(tmp_path)
    store = JobStore(tmp_path / "jobs.sqlite", patience=0.01)
    holder = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BackendError, match="database is locked"):
        intend(store, "k")
    holder.close()
    intend(store, "k")


WRITER = """
import sys
from pathlib import Path
from quantum.engines.devices.base import Request
from quantum.engines.devices.job_store import JobStore
store = JobStore(Path(sys.argv[1]))
for number in range(20):
    key = f"{sys.argv[2]}-{number}"
    store.record_intent(key, Request((), 1.0, key, "run-1", "", 1, 10), "b")
    store.record_id(key, f"job of {key}")
"""


def test_many_processes_write_at_once(store: JobStore) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.path), name]) for name in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert store.spent("run-1") == Usage(60, 60, 600)


def test_a_claimed_key_is_waited_for_and_leaves_no_file(store: JobStore) -> None:
    order: list[str] = []
    claimed = threading.Event()

    def second() -> None:
        claimed.wait(10)
        with store.claim("k"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with store.claim("k"), store.claim("another"):
        claimed.set()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert store.path is not None
    assert not list(store.path.parent.glob("*.lock"))


def test_a_store_in_memory_forgets() -> None:
    store = JobStore(None)
    intend(store, "k")
    with store.claim("k"):
        store.record_id("k", "job-1")
    assert store.spent("run-1").jobs == 1
    assert JobStore(None).find("k") is None
