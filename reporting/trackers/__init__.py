"""Trackers: a run's figures to W&B, MLflow or TensorBoard, while it runs (`run.track`).

A module of this folder is a tracker's name, its package and its extra of the installation. It has
one class, ``Tracker``. What a tracker raises is one warning, and the run goes on without it.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common.logger import log

from core import Settings, flatten, read_json, unexpected_error
from core.extras import tracker_names

Event = Mapping[str, Any]
Figures = dict[str, float]

NO_FIGURES = ("event", "round", "client")
"""Numbers of an event that say which it is."""


class Tracker(Protocol):
    """Where figures go to.

    Its module's class is built with the run's name, an id that a resumed run keeps, the results
    folder, and the flat settings.
    """

    def log(self, step: int, figures: Figures) -> None:
        """Record figures of a round; the same step may come several times."""

    def close(self, figures: Figures, files: list[Path], *, completed: bool) -> None:
        """Record the final test, attach files, and end."""


class Trackers:
    """All trackers of a run; none can fail it.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    folder : Path
        Its results folder; ``config.json`` is written.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder, self._open, self._step = folder, dict[str, Tracker](), 0
        started = read_json(folder / "config.json").get("started", "")
        key = hashlib.sha256(f"{folder}{started}".encode()).hexdigest()[:16]
        for name in tracker_names(settings):
            with self._or_without(name):
                made = importlib.import_module(f"reporting.trackers.{name}").Tracker
                self._open[name] = made(folder.name, key, folder, flatten(settings))

    @contextmanager
    def _or_without(self, name: str) -> Iterator[None]:
        """Do something with a tracker, or go on without it."""
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            log(WARNING, "the run goes on without %s: %s", name, unexpected_error(error))

    def event(self, event: Event) -> None:
        """Record what an event of ``metrics.jsonl`` says in numbers."""
        if event.get("event") not in ("round", "client"):
            return
        self._step = int(event["round"])
        group = "run" if event["event"] == "round" else f"client-{event['client']}"
        figures = numbers(group, event)
        for name, tracker in list(self._open.items()):
            with self._or_without(name):
                tracker.log(self._step, figures)

    def close(self) -> None:
        """Record the final test, and attach report, settings and ledger."""
        summary = read_json(self._folder / "summary.json")
        figures = numbers("test", summary.get("test") or {})
        for baseline, scores in (summary.get("baselines") or {}).items():
            figures |= numbers(f"test-{baseline}", scores or {})
        wanted = ("report.html", "config.json", "ledger.json", "summary.json")
        files = [self._folder / name for name in wanted if (self._folder / name).is_file()]
        completed = summary.get("status") == "completed"
        for name, tracker in list(self._open.items()):
            with self._or_without(name):
                tracker.close(figures, files, completed=completed)


@contextmanager
def tracked(settings: Settings, folder: Path) -> Iterator[Callable[[Event], None]]:
    """Open the run's trackers; yield what takes its events."""
    trackers = Trackers(settings, folder)
    try:
        yield trackers.event
    finally:
        trackers.close()


def numbers(group: str, event: Event) -> Figures:
    """Return an event's finite numbers, each named ``group/key``.

    Examples
    --------
    >>> numbers("run", {"event": "round", "round": 2, "loss": 0.5, "reason": "..."})
    {'run/loss': 0.5}
    """
    return {
        f"{group}/{key}": float(value)
        for key, value in event.items()
        if key not in NO_FIGURES
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }
