"""The client processes of a deployment, watched: when they are there, what they use."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from llm_qfl.cli.processes import TAG, alive

CLIENT = "flwr-clientapp"


@dataclass
class Seen:
    """A client process: first and last seen (monotonic seconds), and its CPU seconds till then."""

    first: float
    last: float
    cpu: float


@dataclass(frozen=True)
class Parts:
    """A round's wall seconds in the order in which they pass.

    Attributes
    ----------
    until : float
        From the end of the round before until the last client process is there: the server's
        order, and the node's next look for one.
    running : float
        From then until the last of them is gone.
    after : float
        From then until the server has closed the round.
    cpu : float
        CPU seconds of a client process, mean.
    """

    until: float
    running: float
    after: float
    cpu: float


class Watch:
    """Watches client processes, and a file's lines that say that a round has ended."""

    def __init__(self, ends: Callable[[], int], tag: str, every: float = 0.05) -> None:
        self._ends, self._tag, self._every = ends, tag, every
        self._seen: dict[int, Seen] = {}
        self._round_ends: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(self._every):
            now = time.monotonic()
            for pid, cpu in clients(self._tag):
                seen = self._seen.setdefault(pid, Seen(now, now, cpu))
                seen.last, seen.cpu = now, cpu
            self._round_ends += [now] * (self._ends() - len(self._round_ends))

    def parts(self) -> list[Parts]:
        """Return the parts of each round but the first."""
        return parts_of(self._round_ends, list(self._seen.values()))


def parts_of(ends: Sequence[float], seen: Sequence[Seen]) -> list[Parts]:
    """Return each round's parts, from when rounds ended and when processes were there."""
    found = []
    for begun, ended in itertools.pairwise(ends):
        mine = [one for one in seen if begun <= one.first <= ended]
        if mine:
            last_begun, gone = max(one.first for one in mine), max(one.last for one in mine)
            cpu = statistics.fmean(one.cpu for one in mine)
            found.append(Parts(last_begun - begun, gone - last_begun, ended - gone, cpu))
    return found


def clients(tag: str) -> Iterable[tuple[int, float]]:
    """Yield id and CPU seconds of each client process of the deployment with that tag."""
    for process in psutil.process_iter():
        try:
            program = any(Path(word).name == CLIENT for word in process.cmdline()[:3])
            if program and process.environ().get(TAG) == tag and alive(process):
                used = process.cpu_times()
                yield process.pid, used.user + used.system
        except (psutil.Error, OSError):
            continue
