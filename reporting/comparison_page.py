"""The page that puts runs side by side: their figures, and all of them in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.formatting import span
from reporting.charts import (
    HALF,
    MUTED,
    chart,
    client_style,
    legend_line,
    percent_axis,
    whole_rounds,
)
from reporting.compared_run import Run
from reporting.formatting import (
    NONE,
    amount,
    duration,
    figure,
    percent,
    setting_value,
    short,
    size,
    text,
    whole,
)
from reporting.page import Page, Section, Table, section, table_of

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
    """Build the page of a comparison; HTML in one file that needs no network.

    Parameters
    ----------
    runs : sequence of Run
        The runs.
    found : Mapping
        What `reporting.compare.compare` says of them.
    """
    names = [run.name for run in runs]
    return Page(
        title=f"{len(runs)} runs side by side",
        folder=", ".join(names),
        sections=[
            _figures(names, found),
            _target(found),
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
    ).html()


def _figures(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    rows = [
        [name, *(_written(run.get(key), write) for run in found["runs"])]
        for key, name, write in FIGURES
        if any(run.get(key) not in (None, "") for run in found["runs"])
    ]
    damaged = [
        f"{run['name']}, damaged and left out: {one}"
        for run in found["runs"]
        for one in run["damaged"]
    ]
    warnings = [*filter(None, [found["warning"]]), *damaged]
    return section(
        "comparison", "figures", tables=[Table(("Figure", *names), rows)], warnings=warnings
    )


def _written(value: Any, write: Any) -> str:
    return NONE if value in (None, "") else str(write(value))


def _target(found: Mapping[str, Any]) -> Section:
    goal, runs = found["target"], found["runs"]
    how = "as asked" if found["given"] else "the lowest of the runs' best"
    rows = [
        [run["name"], *(_reached(run["reached"], key, write) for key, _, write in REACHED)]
        for run in runs
    ]
    table = Table(("Run", *(name for _, name, _ in REACHED)), rows)
    values = {"goal": percent(goal), "how": how, "smoothing": found["smoothing"]}
    return section("comparison", "target", values, tables=[table] if goal is not None else [])


def _reached(point: Mapping[str, Any] | None, key: str, write: Any) -> str:
    return "never" if point is None else _written(point[key], write)


def _seeds(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    """Put runs that differ in their seed alone into one row."""
    rows = [
        {"runs": ", ".join(names[k] for k in group), **_group([found["runs"][k] for k in group])}
        for group in found["groups"]
    ]
    columns = (
        ("runs", "Runs", str),
        ("seeds", "Seeds", whole),
        ("mean", "Mean test accuracy", percent),
        ("ends", "Lowest to highest", text),
        ("reached", "Reached the accuracy", str),
        ("circuits", "Circuits until then", amount),
    )
    repeated = len(rows) < len(names)
    return section("comparison", "seeds", tables=[table_of(columns, rows)] if repeated else [])


def _group(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return test accuracies, and the cost of reaching the target, of one configuration."""
    known = [run["test_accuracy"] for run in runs if run["test_accuracy"] is not None]
    reached = [run["reached"]["circuits"] for run in runs if run["reached"]]
    costs = [value for value in reached if value is not None]
    return {
        "seeds": len(runs),
        "mean": sum(known) / len(known) if known else None,
        "ends": span((min(known), max(known))) if len(known) > 1 else None,
        "reached": f"{len(reached)} of {len(runs)}",
        "circuits": sum(costs) / len(costs) if costs else None,
    }


def _curves(runs: Sequence[Run], found: Mapping[str, Any]) -> Section:
    pictures = [
        curves(runs, found["groups"], across, key, found["target"])
        for key in ("accuracy", "loss")
        for across in ("circuits", "round")
    ]
    values = {"smoothing": found["smoothing"]}
    return section("comparison", "curves", values, pictures=pictures, legend="clients")


def curves(
    runs: Sequence[Run],
    groups: Sequence[Sequence[int]],
    across: str,
    key: str,
    goal: float | None = None,
) -> str:
    """Draw a figure of several runs in one picture; empty if no run has it.

    Parameters
    ----------
    runs : sequence of Run
        The runs.
    groups : sequence of sequence of int
        Places of the runs that share a colour, in the order of the colours.
    across : str
        What goes across: ``circuits`` or ``round``.
    key : str
        ``accuracy`` or ``loss``.
    goal : float or None
        Accuracy where to draw a dashed line.
    """
    lines = [run.points.dropna(subset=[across, key]) for run in runs]
    if not any(map(len, lines)):
        return ""
    colour = {place: number for number, group in enumerate(groups) for place in group}
    title = f"validation {key}" + ", nats" * (key == "loss")

    def draw(drawing: Any, axes: Any) -> None:
        for place, line in enumerate(lines):
            style = client_style(colour[place])
            axes.plot(line[across], line[key], ".", color=style["color"], alpha=0.5, ms=7)
            axes.plot(line[across], line[f"smooth_{key}"], **style)  # a gap where there is none
        if goal is not None and key == "accuracy":
            axes.axhline(goal, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_ylabel(title)
        if across == "round":
            whole_rounds(axes)
        else:
            _circuits_axis(axes, [line["circuits"].iat[-1] for line in lines if len(line)])
        if key == "accuracy":
            percent_axis(axes)

    named = "circuits" if across == "circuits" else "rounds"
    return chart(HALF, draw, f"{title} of {len(runs)} runs by {named}")


def _circuits_axis(axes: Any, ends: Sequence[float]) -> None:
    """Label the axis of circuits; logarithmic where the runs differ tenfold."""
    from matplotlib.ticker import MaxNLocator

    some = [float(end) for end in ends if end > 0]
    tenfold = len(some) > 1 and max(some) >= 10 * min(some)
    if tenfold:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, at: short(value))
    axes.set_xlabel("circuits so far" + ", logarithmic" * tenfold)


def _settings(names: Sequence[str], found: Mapping[str, Any]) -> Section:
    rows = [[key, *map(setting_value, values)] for key, values in found["settings"].items()]
    return section("comparison", "settings", tables=[Table(("Setting", *names), rows, ())])
