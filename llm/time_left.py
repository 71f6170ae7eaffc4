"""Lines on long work: what share of it is done, and about how much time is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.formatting import duration
from llm.protocol import Progress

EVERY = 10.0
"""Seconds between two lines; work that takes less has none."""


class TimeLeft:
    """Reports on work of many parts that take about equally long for their size.

    Parameters
    ----------
    report : callable
        Gets the lines, such as ``smollm2: fine-tuning 40 %, about 1 min 5 s left``.
    what : str
        What is done.
    total : float
        Size of all parts: rows, or tokens.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        report: Progress,
        what: str,
        total: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report, self._what, self._total, self._clock = report, what, total, clock
        self._began = self._last = clock()
        self._done = 0.0

    def add(self, size: float) -> None:
        """Count a part as done; report if the last line is long ago."""
        self._done += size
        now = self._clock()
        if now - self._last < EVERY or self._done >= self._total:
            return
        self._last = now
        left = (now - self._began) * (self._total - self._done) / self._done
        share = 100 * self._done / self._total
        self._report(f"{self._what} {share:.0f} %, about {duration(left)} left")
