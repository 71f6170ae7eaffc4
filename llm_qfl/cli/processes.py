"""The processes that we started, and their ends.

Flower starts its parts in sessions of their own, and Ray's outlive their parent, so ending
one process group is not enough. Every process of a run carries a tag in its environment; a
process belongs to the run if it carries the tag or descends from one that does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

TAG = "LLM_QFL_LAUNCH"
"""Environment variable that marks every process of one launch."""

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process as the system knows it; `start` tells it from a later one of the same id."""

    pid: int
    parent: int
    start: str


def running() -> dict[int, Process]:
    """Return every running process by id; zombies are left out."""
    if (_PROC / "self" / "stat").exists():
        found = (_from_proc(entry) for entry in _PROC.iterdir() if entry.name.isdigit())
    else:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "lstart="],
            capture_output=True,
            text=True,
            check=False,
        )
        found = (_from_ps(line) for line in listed.stdout.splitlines())
    return {process.pid: process for process in found if process is not None}


def _from_proc(entry: Path) -> Process | None:
    try:
        stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in brackets may itself hold spaces and brackets: read from the last one on.
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        return None
    return Process(int(entry.name), int(fields[1]), fields[19])


def _from_ps(line: str) -> Process | None:
    fields = line.split(maxsplit=3)
    if len(fields) < 4 or fields[2].startswith("Z"):
        return None
    return Process(int(fields[0]), int(fields[1]), fields[3])


def _carries(pid: int, tag: str) -> bool:
    try:
        return f"{TAG}={tag}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def descendants(roots: Iterable[int], table: Mapping[int, Process]) -> set[int]:
    """Return `roots` and all that descend from them, as far as they are in `table`."""
    family = {pid for pid in roots if pid in table}
    grown = True
    while grown:
        born = {p.pid for p in table.values() if p.parent in family} - family
        family |= born
        grown = bool(born)
    return family


def members(tag: str, roots: Iterable[int] = ()) -> set[Process]:
    """Return the processes of one launch, this process never among them."""
    table = running()
    tagged = {pid for pid in table if _carries(pid, tag)}
    family = descendants({*roots, *tagged} - {os.getpid()}, table) - {os.getpid()}
    return {table[pid] for pid in family}


def still_there(processes: Iterable[Process]) -> set[Process]:
    """Return those of `processes` that run still (not another one of the same id)."""
    table = running()
    return {p for p in processes if p.pid in table and table[p.pid].start == p.start}


def wait_for(done: Callable[[], bool], seconds: float, interval: float = 0.1) -> bool:
    """Wait until `done` or for at most `seconds`; return whether it is done."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def end_all(processes: Iterable[Process], grace: float) -> set[Process]:
    """Ask processes to end, then make them; return those that even so remain."""
    left = still_there(processes)
    for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in left:
            try:
                os.kill(process.pid, sign)
            except (ProcessLookupError, PermissionError):
                continue
        wait_for(lambda: not still_there(left), patience)  # noqa: B023 - called in this round only
        left = still_there(left)
        if not left:
            break
    return left


def die_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` by which a child is ended should we be killed; None off Linux.

    Without it a `kill -9` of the launcher would leave the SuperLink running for ever.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        library = ctypes.CDLL(None, use_errno=True)
        prctl = library.prctl
    except (OSError, AttributeError):
        return None
    set_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>

    def ask() -> None:
        prctl(set_death_signal, signal.SIGTERM)

    return ask


class Interrupted(BaseException):
    """The user pressed Ctrl-C, or somebody ended us politely."""


@contextmanager
def signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted` while the run is on."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    names = [n for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {getattr(signal, n): signal.signal(getattr(signal, n), interrupt) for n in names}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
