"""The report's charts: from a record to inline SVG, or to nothing where there is no data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from core import percent, wilson_interval
from reporting.record import Record, any_known, known
from reporting.style import (
    ACCENT,
    HALF,
    INK,
    MUTED,
    WARN,
    WIDE,
    chart,
    client_style,
)

MANY_ROUNDS = 24
"""Beyond so many rounds or clients a heat map shows no figures in its cells."""

MANY_CLIENTS = 12
"""Beyond so many clients a chart shows bands, not a line each, and tables of them are folded."""

DARK_TEXT = "#1f2934"
"""On light cells of a heat map, whatever the page's colours; not one of the theme's."""

Rows = Sequence[Sequence[float]]


def curves(record: Record, key: str, title: str, *, share: bool = False) -> str:
    """Draw a figure by round: the global model's thick, each client's thin.

    Parameters
    ----------
    record : Record
        The run.
    key : str
        ``loss`` or ``accuracy``.
    title : str
        Label of the vertical axis.
    share : bool
        Whether the figure is a share, to be shown in per cent.

    Returns
    -------
    str
        SVG; empty if no round has the figure.
    """
    whole, parts = record.series(key), record.grid(key)
    if not known(whole) and not any_known(parts):
        return ""

    def draw(figure: Any, axes: Any) -> None:
        _client_lines(axes, record.round_ids, parts, linewidth=1.1, alpha=0.9)
        axes.plot(record.round_ids, whole, color=INK, linewidth=2.6, marker="o")
        best = record.summary.get("best_round")
        if best in record.round_ids:
            value = whole[record.round_ids.index(int(best))]
            axes.plot([best], [value], "o", ms=10, mfc="none", mec=ACCENT, mew=2)
        _rounds_axis(axes, record.round_ids)
        axes.set_ylabel(title)
        if share:
            percent_axis(axes)

    return chart(HALF, draw, f"{title} by round: global model and each client")


def _client_lines(axes: Any, rounds: Sequence[int], rows: Rows, **look: Any) -> None:
    """Draw a line a client; of many clients the median, the middle half and the whole range."""
    if len(rows) <= MANY_CLIENTS:
        for index, row in enumerate(rows):
            axes.plot(rounds, row, marker=".", **look, **client_style(index))
        return
    import numpy as np

    columns = [known(column) for column in zip(*rows, strict=True)]
    parts = [np.quantile(c or [math.nan], [0, 0.25, 0.5, 0.75, 1]) for c in columns]
    least, low, middle, high, most = np.stack(parts, axis=1)
    colour = client_style(0)["color"]
    axes.fill_between(rounds, least, most, color=colour, alpha=0.15, linewidth=0)
    axes.fill_between(rounds, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(rounds, middle, marker=".", color=colour)


def ratios(record: Record) -> str:
    """Draw each client's quantum loss over its LLM's loss, by round."""
    rows = record.grid("ratio")
    if not any_known(rows):
        return ""

    def draw(figure: Any, axes: Any) -> None:
        axes.axhline(1.0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        _client_lines(axes, record.round_ids, rows)
        _rounds_axis(axes, record.round_ids)
        axes.set_ylabel("r = quantum loss / LLM loss")

    return chart(WIDE, draw, "Ratio of the quantum model's loss to the LLM's, by client and round")


def circuits(record: Record) -> str:
    """Draw the circuits so far."""
    values = record.series("circuits_total")
    if not known(values):
        return ""

    def draw(figure: Any, axes: Any) -> None:
        axes.fill_between(record.round_ids, values, color=ACCENT, alpha=0.12, linewidth=0)
        axes.plot(record.round_ids, values, color=ACCENT, marker="o")
        _rounds_axis(axes, record.round_ids)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"circuits {record.circuit_kind} so far".replace("  ", " "))
        axes.yaxis.set_major_formatter(lambda value, at: short(value))

    return chart(HALF, draw, "Circuits so far, by round")


def idle(record: Record) -> str:
    """Draw the share of the clients' time spent waiting at the barrier."""
    values = record.series("idle_share")
    if not known(values):
        return ""
    from matplotlib.ticker import MaxNLocator

    def draw(figure: Any, axes: Any) -> None:
        axes.bar(record.round_ids, values, color="#c98a1b", width=0.62)
        _rounds_axis(axes, record.round_ids)
        axes.set_ylim(0, max(0.1, *(1.08 * value for value in known(values))))
        axes.set_ylabel("time spent waiting")
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        percent_axis(axes)

    return chart(HALF, draw, "Share of the clients' time spent waiting, by round")


def heat(
    record: Record, key: str, unit: str, colours: str, places: int = 0, *, marked: bool = False
) -> str:
    """Draw a figure by client and round as a heat map.

    Parameters
    ----------
    record : Record
        The run.
    key : str
        Key of the ``client`` events.
    unit : str
        What the colour bar shows.
    colours : str
        matplotlib's name of a light-to-dark colour map.
    places : int
        Decimal places of the figures in the cells.
    marked : bool
        Whether to mark who trained and was not aggregated, and who was dropped or failed.

    Returns
    -------
    str
        SVG; empty if no client has the figure.
    """
    rows = record.grid(key)
    if not any_known(rows):
        return ""

    def draw(figure: Any, axes: Any) -> None:
        image = axes.imshow(rows, aspect="auto", cmap=colours, vmin=0)
        if max(len(record.round_ids), len(rows)) <= MANY_ROUNDS:
            _cells(axes, rows, places, image)
        if marked:
            _draw_marks(axes, record)
        _grid_axes(axes, record)
        bar = figure.colorbar(image, ax=axes, pad=0.015, fraction=0.035)
        bar.outline.set_visible(False)
        bar.set_label(unit)

    return chart(_grid_size(record), draw, f"{unit} by client and round")


def _cells(axes: Any, rows: Sequence[Sequence[float]], places: int, image: Any) -> None:
    """Write each cell's figure, light on dark and dark on light; nothing where there is none."""
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if math.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
                colour = DARK_TEXT if light > 0.5 else "white"
                axes.text(x, y, f"{value:.{places}f}", ha="center", va="center", color=colour)


def _draw_marks(axes: Any, record: Record) -> None:
    """Mark who trained and was not aggregated (a ring), and who was dropped or failed (a cross)."""
    looks: dict[str, dict[str, Any]] = {
        "trained, not aggregated": {"marker": "o", "facecolors": "none", "edgecolors": "#c98a1b"},
        "dropped or failed": {"marker": "x", "color": WARN},
    }
    for name, points in _marks(record).items():
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, s=190, linewidths=2, label=name, **looks[name])
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handletextpad=0.3)


def _marks(record: Record) -> dict[str, list[tuple[int, int]]]:
    """Return the cells (round's place, client's place) of updates that did not count."""
    marks: dict[str, list[tuple[int, int]]] = {
        "trained, not aggregated": [],
        "dropped or failed": [],
    }
    dropped = {(e.get("client"), e.get("round")) for e in record.clients if e.get("dropped")}
    answered = {(e.get("client"), e.get("round")) for e in record.clients}
    for event in record.rounds:
        at = record.round_ids.index(int(event["round"]))
        asked = {int(k) for k in event.get("participants", [])}
        aggregated = {int(k) for k in event.get("aggregated", [])}
        for client in sorted(asked):
            cell = (at, record.client_ids.index(client))
            silent = bool(answered) and (client, event["round"]) not in answered
            if client in aggregated:
                continue
            if (client, event["round"]) in dropped or silent:
                marks["dropped or failed"].append(cell)
            else:
                marks["trained, not aggregated"].append(cell)
    return marks


def confusion(record: Record) -> str:
    """Draw the confusion matrix of the final test."""
    counts = (record.summary.get("test") or {}).get("confusion")
    if not counts:
        return ""
    names = [_short_name(name) for name in record.class_names(len(counts))]
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]

    def draw(figure: Any, axes: Any) -> None:
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for y, row in enumerate(counts):
            for x, cell in enumerate(row):
                colour = "white" if shares[y][x] > 0.55 else DARK_TEXT
                text = f"{cell:,}\n{percent(shares[y][x])}"
                axes.text(x, y, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(visible=False)
        image.set_clip_on(True)

    side = min(6.5, 2.6 + 0.55 * len(names))
    return chart((side + 0.6, side), draw, "Confusion matrix of the test rows")


def reliability(record: Record) -> str:
    """Draw how often predictions of each confidence are right, of the final test."""
    bins = [one for one in record.calibration if one["rows"]]
    if not bins:
        return ""

    def draw(figure: Any, axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        centres, shares = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        ranges = [wilson_interval(b["accuracy"], b["rows"]) or (0.0, 1.0) for b in bins]
        low = [share - one[0] for share, one in zip(shares, ranges, strict=True)]
        high = [one[1] - share for share, one in zip(shares, ranges, strict=True)]
        axes.errorbar(centres, shares, yerr=(low, high), fmt="o", color=ACCENT, ecolor=MUTED)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="right")
        percent_axis(axes)
        percent_axis(axes, axes.xaxis)

    return chart((4.4, 3.3), draw, "Share of right predictions by their confidence, test rows")


def short(value: float) -> str:
    """Write a large number shortly: 1.2 M, 35 k, 800."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _grid_size(record: Record) -> tuple[float, float]:
    return WIDE[0], max(2.0, min(9.0, 1.2 + 0.34 * len(record.client_ids)))


def _grid_axes(axes: Any, record: Record) -> None:
    """Label a clients-by-rounds grid."""
    places = range(len(record.round_ids))
    every = max(1, math.ceil(len(record.round_ids) / MANY_ROUNDS))
    axes.set_xticks(list(places)[::every], [str(at) for at in record.round_ids[::every]])
    names = [_short_name(record.client_name(client)) for client in record.client_ids]
    step = max(1, math.ceil(len(names) / 45))
    axes.set_yticks(range(0, len(names), step), names[::step])
    axes.set_xlabel("round")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short_name(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _rounds_axis(axes: Any, rounds: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.set_xlim(min(rounds) - 0.5, max(rounds) + 0.5)
    axes.set_xlabel("round")


def percent_axis(axes: Any, axis: Any = None) -> None:
    """Show an axis, the vertical one if none is named, in per cent; decimals for close ticks."""
    from matplotlib.ticker import PercentFormatter

    (axis or axes.yaxis).set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
