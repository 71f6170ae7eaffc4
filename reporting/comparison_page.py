"""The page that puts runs side by side: their figures, and all of them in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core import span
from reporting.charts import percent_axis, short
from reporting.formatting import NONE, amount, duration, figure, percent, size, whole
from reporting.page import render
from reporting.parts import Section, Table
from reporting.style import HALF, MUTED, chart, client_style, legend_line

if TYPE_CHECKING:
    from reporting.compared_run import Run

FIGURES = (
    ("status", "Status", str),
    ("agent", "Agent", str),
    ("data", "Data", str),
    ("test_accuracy", "Test accuracy", percent),
    ("test_interval", "Test accuracy, 95 % interval", span),
    ("test_loss", "Test loss", figure),
    ("majority", "Test accuracy, majority class", percent),
    ("linear", "Test accuracy, logistic regression on the same features", percent),
    ("best_validation", "Best validation accuracy, smoothed", percent),
    ("rounds", "Rounds", whole),
    ("circuits", "Circuits", amount),
    ("simulated", "Circuits, those that were simulated", amount),
    ("spend", "Spend: circuits times their price", amount),
    ("idle_share", "Share of time spent waiting", percent),
    ("bytes", "Sent, both ways", size),
    ("seconds", "Wall time", duration),
    ("error", "Error", str),
)

REACHED = (
    ("round", "Round", whole),
    ("circuits", "Circuits", amount),
    ("idle_seconds", "Seconds waited", duration),
    ("bytes", "Sent, both ways", size),
)


def build_comparison(runs: Sequence[Run], found: Mapping[str, Any]) -> str:
    """Build the page of a comparison.

    Parameters
    ----------
    runs : sequence of Run
        The runs.
    found : Mapping
        What `reporting.compare.compare` says of them.

    Returns
    -------
    str
        HTML, one file that needs no network.
    """
    names = [run.name for run in runs]
    return render(
        title=f"{len(runs)} runs side by side",
        folder=", ".join(names),
        status="",
        verdict="",
        facts=[],
        sections=[
            _figures(names, found),
            _target(names, found),
            _seeds(names, found),
            _curves(runs, found),
            _settings(names, found),
        ],
        legend=[
            (legend_line(place), ", ".join(names[k] for k in group))
            for place, group in enumerate(found["groups"])
        ],
        kind="comparison",
        maker="llm-qfl compare",
    )


def _figures(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    rows = [
        [name, *(_written(run.get(key), write) for run in found["runs"])]
        for key, name, write in FIGURES
        if any(run.get(key) not in (None, "") for run in found["runs"])
    ]
    return Section(
        "figures",
        "The runs",
        "A dash: not on record. Costs are of the whole run, preparation and final test included.",
        tables=[Table(("Figure", *names), rows, frozenset(range(1, len(names) + 1)))],
        warnings=[
            *([found["warning"]] if found["warning"] else []),
            *(
                f"{name}, damaged and left out: {one}"
                for name, run in zip(names, found["runs"], strict=True)
                for one in run["damaged"]
            ),
        ],
    )


def _written(value: Any, write: Any) -> str:
    return NONE if value in (None, "") else str(write(value))


def _target(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    goal = found["target"]
    how = "as asked" if found["given"] else "the lowest of the runs' best"
    rows = [
        [name, *(_reached(run["reached"], key, write) for key, _, write in REACHED)]
        for name, run in zip(names, found["runs"], strict=True)
    ]
    return Section(
        "target",
        "What each spent to reach the same accuracy",
        f"Validation accuracy {percent(goal)} ({how}), {found['smoothing']}, for all runs alike. "
        "Costs are of everything until the round was done, preparation included.",
        tables=[
            Table(
                ("Run", *(name for _, name, _ in REACHED)),
                rows if goal is not None else [],
                frozenset({1, 2, 3, 4}),
            )
        ],
        empty="No run has finished a round.",
    )


def _seeds(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    """Put runs that differ in their seed alone into one row."""
    rows = []
    for group in found["groups"]:
        runs = [found["runs"][k] for k in group]
        known = [run["test_accuracy"] for run in runs if run["test_accuracy"] is not None]
        reached = [run["reached"]["circuits"] for run in runs if run["reached"]]
        costs = [value for value in reached if value is not None]
        rows.append(
            [
                ", ".join(names[k] for k in group),
                whole(len(group)),
                percent(sum(known) / len(known)) if known else NONE,
                span((min(known), max(known))) if len(known) > 1 else NONE,
                f"{len(reached)} of {len(group)}",
                amount(sum(costs) / len(costs)) if costs else NONE,
            ]
        )
    head = ("Runs", "Seeds", "Mean test accuracy", "Lowest to highest", "Reached the accuracy")
    repeated = len(rows) < len(names)
    return Section(
        "seeds",
        "Runs that differ in their seed alone",
        "A row is one configuration; circuits are the mean of the runs that reached the accuracy.",
        tables=[
            Table((*head, "Circuits until then"), rows if repeated else [], frozenset(range(1, 6)))
        ],
        empty="No two runs have the same settings but for the seed.",
    )


def _reached(point: Mapping[str, Any] | None, key: str, write: Any) -> str:
    return "never" if point is None else _written(point[key], write)


def _curves(runs: Sequence[Run], found: Mapping[str, Any]) -> Section:
    goal = found["target"]
    pictures = [
        versus(
            runs, found["groups"], across, f"{kind}{unit}", key, goal if key == "accuracy" else None
        )
        for key, kind, unit in (
            ("accuracy", "validation accuracy", ""),
            ("loss", "validation loss", ", nats"),
        )
        for across in ("circuits", "round")
    ]
    return Section(
        "curves",
        "Accuracy and loss by circuits and by rounds",
        f"Of the global model on validation rows. Dots: as measured; lines: {found['smoothing']}. "
        "Dashed: the accuracy to reach. Runs that differ in their seed alone have one colour. "
        "Where the runs' circuits differ tenfold or more, their axis is logarithmic.",
        pictures=pictures,
        empty="No run has finished a round.",
        legend="clients",
    )


def versus(
    runs: Sequence[Run],
    groups: Sequence[Sequence[int]],
    across: str,
    title: str,
    key: str,
    goal: float | None,
) -> str:
    """Draw a figure of several runs in one picture.

    Parameters
    ----------
    runs : sequence of Run
        The runs.
    groups : sequence of sequence of int
        Places of the runs that share a colour, in the order of the colours.
    across : str
        What goes across: ``circuits`` or ``round``.
    title : str
        Label of the vertical axis.
    key : str
        ``accuracy`` or ``loss``.
    goal : float or None
        Where to draw a dashed line.

    Returns
    -------
    str
        SVG; empty if no run has the figure.
    """
    lines = [
        [(getattr(p, across), getattr(p, key), getattr(p, f"smooth_{key}")) for p in run.points]
        for run in runs
    ]
    known = [[point for point in line if None not in point[:2]] for line in lines]
    if not any(known):
        return ""
    from matplotlib.ticker import MaxNLocator

    colour = {place: number for number, group in enumerate(groups) for place in group}
    ends = [line[-1][0] for line in known if line and line[-1][0] > 0]
    tenfold = across == "circuits" and len(ends) > 1 and max(ends) >= 10 * min(ends)

    def draw(drawing: Any, axes: Any) -> None:
        for place, line in enumerate(known):
            style = client_style(colour[place])
            xs, measured, smooth = zip(*line, strict=True) if line else ((), (), ())
            axes.plot(xs, measured, ".", color=style["color"], alpha=0.5, ms=7)
            # None before there are enough rounds: matplotlib leaves a gap.
            axes.plot(xs, [math.nan if value is None else value for value in smooth], **style)
        if goal is not None:
            axes.axhline(goal, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_ylabel(title)
        if across == "round":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
            axes.set_xlabel("round")
        else:
            if tenfold:
                axes.set_xscale("log")
            else:
                axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
                axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(lambda value, at: short(value))
            axes.set_xlabel("circuits so far" + ", logarithmic" * tenfold)
        if key == "accuracy":
            percent_axis(axes)

    named = "circuits" if across == "circuits" else "rounds"
    return chart(HALF, draw, f"{title} of {len(runs)} runs by {named}")


def _settings(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    rows = [
        [key, *(_value(value) for value in values)] for key, values in found["settings"].items()
    ]
    return Section(
        "settings",
        "Settings in which they differ",
        "Names and folders of the runs are left out. A dash: the run knows no such setting.",
        tables=[Table(("Setting", *names), rows)],
        empty="They have the same settings.",
    )


def _value(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)
