"""The job book: private, durable, shared by processes, and clear about what is wrong with it."""

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
from quantum.engines.devices.job_store import JobBook
from quantum.engines.devices.jobs import Usage


def intend(book: JobBook, key: str, run: str = "run-1", shots: int = 100) -> None:
    book.intend(
        key, run=run, label="round 1", backend="b", circuits=2, shots=shots, qpu_estimate=4.0
    )


@pytest.fixture
def book(tmp_path: Path) -> JobBook:
    return JobBook(tmp_path / "site" / "jobs.sqlite")


def test_a_job_is_read_back_as_it_was_written_by_another_book_on_the_file(book: JobBook) -> None:
    values = [np.array([[0.5, -0.25]]), np.array(1.0)]
    intend(book, "k")
    book.submitted("k", "job-1")
    book.collected("k", values, Usage(1, 2, 100, 3.5, 7.0))
    assert book.path is not None
    entry = JobBook(book.path).find("k")
    assert entry is not None
    assert entry.values is not None
    assert (entry.status, entry.job_id, entry.label) == ("collected", "job-1", "round 1")
    assert [v.tolist() for v in entry.values] == [[[0.5, -0.25]], 1.0]
    assert [v.dtype for v in entry.values] == [np.float64, np.float64]
    assert entry.usage == Usage(1, 2, 100, 3.5, 7.0)
    assert entry.created <= entry.updated
    assert book.find("other") is None


def test_file_side_files_and_folder_are_their_owners_alone(book: JobBook) -> None:
    assert book.path is not None
    with sqlite3.connect(book.path) as held:  # keeps the write-ahead log in being
        held.execute("SELECT * FROM jobs").fetchall()
        intend(book, "k")
        files = list(book.path.parent.iterdir())
        assert {f.name for f in files} == {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"}
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    held.close()
    assert stat.S_IMODE(book.path.parent.stat().st_mode) == 0o700


def test_spent_counts_what_was_or_may_have_been_accepted(book: JobBook) -> None:
    for key in ("collected", "waiting", "failed", "cancelled", "intended"):
        intend(book, key)
    intend(book, "another run's", run="run-2")
    for key in ("collected", "waiting", "failed", "cancelled", "another run's"):
        book.submitted(key, f"job of {key}")
    book.collected("collected", [], Usage(1, 2, 100, 1.0, 10.0))
    book.failed("failed", "broken", Usage(1, 2, 100, 0.5, 0.0))
    book.cancelled("cancelled")
    # Waiting and cancelled: 4 s each as estimated, until the service tells.
    told = Usage(4, 8, 400, 1.0 + 0.5 + 4.0 + 4.0, 10.0)
    assert book.spent("run-1", besides="intended") == told
    assert book.spent("run-1") == told + Usage(1, 2, 100, 4.0)  # perhaps accepted: it counts
    assert book.spent("run-3") == Usage()
    assert [e.key for e in book.open_jobs("run-1")] == ["waiting", "intended"]
    assert len(book.open_jobs()) == 3


def test_a_key_is_intended_again_only_while_no_job_of_it_was_accepted(book: JobBook) -> None:
    intend(book, "k")
    book.failed("k", "refused")
    intend(book, "k")
    entry = book.find("k")
    assert entry is not None
    assert (entry.status, entry.reason) == ("intended", "")
    book.submitted("k", "job-1")
    with pytest.raises(BackendError, match="'k' is not as we left it"):
        intend(book, "k")
    with pytest.raises(BackendError, match="'unknown' is not as we left it"):
        book.submitted("unknown", "job-1")


def test_attempts_are_numbered(book: JobBook) -> None:
    for key in ("k", "k#2", "k#3", "k#5"):
        intend(book, key)
    assert [e.key for e in book.attempts("k")] == ["k", "k#2", "k#3"]


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
def test_a_damaged_book_is_one_clear_line(book: JobBook, spoil: object, why: str) -> None:
    intend(book, "k")
    assert book.path is not None
    assert callable(spoil)
    spoil(book.path)
    with pytest.raises(BackendError, match=f"cannot be used \\({why}.*; accepted: .*; ") as raised:
        book.find("k")
    assert "\n" not in str(raised.value)
    assert str(book.path) in str(raised.value)


def test_a_book_of_a_later_version_is_left_alone(book: JobBook) -> None:
    assert book.path is not None
    spoil_version(book.path)
    with pytest.raises(BackendError, match="it is of format 99"):
        JobBook(book.path)


def test_a_book_that_cannot_be_written_or_stays_locked_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot be used"):
        JobBook(tmp_path / "file" / "jobs.sqlite")
    with pytest.raises(BackendError, match="cannot be used"):
        JobBook(tmp_path)
    book = JobBook(tmp_path / "jobs.sqlite", patience=0.01)
    holder = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BackendError, match="database is locked"):
        intend(book, "k")
    holder.close()
    intend(book, "k")


WRITER = """
import sys
from pathlib import Path
from quantum.engines.devices.job_store import JobBook
book = JobBook(Path(sys.argv[1]))
for number in range(20):
    key = f"{sys.argv[2]}-{number}"
    book.intend(key, run="run-1", label="", backend="b", circuits=1, shots=10)
    book.submitted(key, f"job of {key}")
"""


def test_many_processes_write_at_once(book: JobBook) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(book.path), name]) for name in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert book.spent("run-1") == Usage(60, 60, 600)


def test_a_claimed_key_is_waited_for_and_leaves_no_file(book: JobBook) -> None:
    order: list[str] = []
    claimed = threading.Event()

    def second() -> None:
        claimed.wait(10)
        with book.claim("k"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with book.claim("k"), book.claim("another"):
        claimed.set()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert book.path is not None
    assert not list(book.path.parent.glob("*.lock"))


def test_a_book_in_memory_forgets() -> None:
    book = JobBook(None)
    intend(book, "k")
    with book.claim("k"):
        book.submitted("k", "job-1")
    assert book.spent("run-1").jobs == 1
    assert JobBook(None).find("k") is None
