"""A study's charts: differences from the reference with their intervals, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reporting.charts import (
    ACCENT,
    HALF,
    MUTED,
    chart,
    client_style,
    percent_axis,
    whole_rounds,
)
from reporting.formatting import short

if TYPE_CHECKING:
    from pandas import DataFrame

POINTS = 60
"""Places at which a curve is drawn."""

FEW = 4
"""Below so many places they are marked: one is no line."""

Curves = Mapping[int, Sequence["DataFrame"]]
"""Rounds of each run, by the place of its cell."""


def forest(rows: Sequence[Mapping[str, Any]], key: str, title: str) -> str:
    """Draw each cell's difference from the reference, a row each; empty if there is none.

    Parameters
    ----------
    rows : sequence of Mapping
        ``name``, and ``KEY_gain``, ``KEY_gain_low``, ``KEY_gain_high`` of each cell.
    key : str
        The score.
    title : str
        Its name, with its unit.
    """
    known = [row for row in rows if row[f"{key}_gain"] is not None]
    if not known:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        for place, row in enumerate(reversed(known)):
            gain, low, high = (row[f"{key}_gain{end}"] for end in ("", "_low", "_high"))
            if low is not None:
                axes.plot([low, high], [place, place], color=ACCENT, linewidth=2.2)
            axes.plot([gain], [place], "o", color=ACCENT, ms=7)
        axes.axvline(0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        names = [_shortened(str(row["name"])) for row in reversed(known)]
        axes.set_yticks(range(len(known)), names)
        axes.set_ylim(-0.6, len(known) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{title}: difference from the reference")
        if key != "loss":
            percent_axis(axes, axes.xaxis)

    height = 1.1 + 0.3 * len(known)
    return chart(
        (HALF[0], height), draw, f"{title}: differences from the reference, 95 % intervals"
    )


def _shortened(name: str, most: int = 30) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def learning_curves(curves: Curves, across: str, key: str, *, target: float | None = None) -> str:
    """Draw each cell's mean over its seeds, with a band of one standard deviation.

    Parameters
    ----------
    curves : mapping
        What there is to draw; the place of a cell is its colour.
    across : str
        ``round`` or ``circuits``.
    key : str
        ``accuracy`` or ``loss``, on the validation rows.
    target : float or None
        Accuracy where to draw a dashed line.
    """
    drawn = {place: averaged(runs, across, key) for place, runs in curves.items()}
    if not any(len(at) for at, _, _ in drawn.values()):
        return ""
    title = f"validation {key}" + ", nats" * (key == "loss")

    def draw(figure: Any, axes: Any) -> None:
        for place, (at, mean, spread) in drawn.items():
            style = client_style(place)
            ends = mean - spread, mean + spread
            axes.fill_between(at, *ends, color=style["color"], alpha=0.13, linewidth=0)
            axes.plot(at, mean, marker="o" if len(at) < FEW else None, **style)
        if target is not None and key == "accuracy":
            axes.axhline(target, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_ylabel(title)
        if across == "round":
            whole_rounds(axes)
        else:
            axes.set_xlabel("circuits so far")
            axes.xaxis.set_major_formatter(lambda value, at: short(value))
        if key == "accuracy":
            percent_axis(axes)

    return chart(HALF, draw, f"{title} by {across}, mean of the seeds of each cell")


def averaged(runs: Sequence[DataFrame], across: str, key: str) -> tuple[Any, Any, Any]:
    """Return where, mean and standard deviation of runs; who has ended keeps its last figure.

    Parameters
    ----------
    runs : sequence of DataFrame
        Rounds of each run of a cell.
    across, key : str
        Columns.

    Returns
    -------
    tuple of array, (places,)
        From where every run has a figure; at most `POINTS` places, empty if there is none.
    """
    lines = [run[[across, key]].dropna().to_numpy(float) for run in runs]
    lines = [line for line in lines if len(line)]
    if not lines:
        return np.empty(0), np.empty(0), np.empty(0)
    every = np.unique(np.concatenate([line[:, 0] for line in lines]))
    every = every[every >= max(line[0, 0] for line in lines)]
    if len(every) > POINTS:
        every = every[np.linspace(0, len(every) - 1, POINTS).round().astype(int)]
    values = np.array(
        [line[np.searchsorted(line[:, 0], every, side="right") - 1, 1] for line in lines]
    )
    spread = values.std(axis=0, ddof=1) if len(lines) > 1 else np.zeros(len(every))
    return every, values.mean(axis=0), spread
