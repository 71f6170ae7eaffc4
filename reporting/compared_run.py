"""One run as the comparison sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """A run once a round was done; costs are of everything so far, preparation included.

    Attributes
    ----------
    round : int
        The round.
    circuits, idle_seconds, bytes : float or None
        Spent so far; None: not on record.
    accuracy, loss, smooth_accuracy, smooth_loss : float or None
        Of the global model on validation rows, as measured and by `SMOOTHING`.
    """

    round: int
    circuits: float | None
    idle_seconds: float | None
    bytes: float | None
    accuracy: float | None
    loss: float | None
    smooth_accuracy: float | None
    smooth_loss: float | None


@dataclass(frozen=True)
class Run:
    """One run: its figures, its settings, and how it went."""

    name: str
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    points: tuple[Point, ...]
    damaged: tuple[str, ...] = ()

    @property
    def best(self) -> float | None:
        """Best validation accuracy, smoothed."""
        known = [p.smooth_accuracy for p in self.points if p.smooth_accuracy is not None]
        return max(known, default=None)

    def first(self, target: float) -> Point | None:
        """Return the first round whose smoothed accuracy is the target or more."""
        return next((p for p in self.points if (p.smooth_accuracy or 0.0) >= target), None)
