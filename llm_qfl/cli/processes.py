"""The processes that we started, and their ends.

Flower starts its parts in sessions of their own, and Ray's outlive their parent, so ending
one process group is not enough. Every process of a run carries a tag in its environment; a
process belongs to the run if it carries the tag or descends from one that does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

TAG = "LLM_QFL_LAUNCH"
"""Environment variable that marks every process of one launch."""

_ENDING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


def alive(process: psutil.Process) -> bool:
    """Whether a process runs still; a zombie does not, nor does a later one of the same id."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def members(tag: str, roots: Iterable[int] = ()) -> set[psutil.Process]:
    """Return the living processes of one launch, this process never among them.

    Parameters
    ----------
    tag : str
        The launch's tag.
    roots : iterable of int
        Ids of further processes, which belong to it with all that descend from them.
    """
    known = set(roots)
    family = {p for p in psutil.process_iter() if p.pid in known or _carries(p, tag)}
    for process in family - {psutil.Process()}:
        with suppress(psutil.Error):
            family.update(process.children(recursive=True))
    return {process for process in family if process.pid != os.getpid() and alive(process)}


def _carries(process: psutil.Process, tag: str) -> bool:
    try:
        return bool(process.environ().get(TAG) == tag)
    except (psutil.Error, OSError):
        return False


def wait_for(done: Callable[[], bool], seconds: float, interval: float = 0.1) -> bool:
    """Wait until `done` or for at most `seconds`; return whether it is done."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def end_all(processes: Iterable[psutil.Process], grace: float) -> set[psutil.Process]:
    """Ask processes to end, then make them; return those that even so remain."""
    left = {process for process in processes if alive(process)}
    for end, patience in ((psutil.Process.terminate, grace), (psutil.Process.kill, 5.0)):
        for process in left:
            with suppress(psutil.Error):
                end(process)
        wait_for(lambda: not any(map(alive, left)), patience)  # noqa: B023 - called in this round
        left = {process for process in left if alive(process)}
    return left


def die_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` by which a child is ended should we be killed; None off Linux.

    Without it a `kill -9` of the launcher would leave the SuperLink running for ever.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    set_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    return lambda: prctl(set_death_signal, signal.SIGTERM)


class Interrupted(BaseException):
    """The user pressed Ctrl-C, or somebody ended us politely.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals(*, once: bool = False) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interrupted`.

    Parameters
    ----------
    once : bool
        Whether a signal counts once only: what is being ended is not to be ended twice. Signals
        that are ignored stay ignored then, as under nohup.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if once:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted(number)

    numbers = [n for n in _ENDING if not (once and signal.getsignal(n) == signal.SIG_IGN)]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
