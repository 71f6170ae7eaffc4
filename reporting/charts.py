"""The report's charts: from a record to inline SVG, or to nothing where there is no data."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.formatting import percent, wilson_interval
from reporting.formatting import short
from reporting.record import Record, known

if TYPE_CHECKING:
    from pandas import DataFrame

MANY_ROUNDS = 24
"""Beyond so many rounds or clients a heat map shows no figures in its cells."""

MANY_CLIENTS = 12
"""Beyond so many clients a chart shows bands, not a line each, and tables of them are folded."""

CROWD = 30
"""Beyond so many clients no picture and no table has a line for each: the page stays short."""

INK, MUTED, LINE, GRID = "#1f2933", "#5b6770", "#d9dee3", "#eceff2"
ACCENT, WARN = "#0b5fa5", "#b42318"

DARK_TEXT = "#1f2934"
"""On light cells of a heat map, whatever the page's colours; not one of the theme's."""

CLIENT_COLOURS = (
    *("#0b6fb8", "#c2410c", "#15803d", "#8b3fb0", "#a16207"),
    *("#be185d", "#0e7490", "#4d5b6a", "#6b8e00", "#7c2d12"),
)
"""At least 4.5 : 1 on white, and different for people with the common colour blindnesses."""

THEME = {
    **{INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", WARN: "bad", GRID: "grid"},
    **{colour: f"c{place}" for place, colour in enumerate(CLIENT_COLOURS)},
}
"""Colours that the page has for a light and for a dark screen, as CSS variables by name."""

DASHES: tuple[tuple[str, Any], ...] = (
    ("solid", "-"),
    ("dashed", (0, (5, 2))),
    ("dotted", (0, (1, 1.5))),
    ("dashed", (0, (5, 1.5, 1, 1.5))),
)
"""Kinds of lines, for CSS and for matplotlib."""

WIDE = (9.2, 3.2)
"""Inches of a chart that has the page's width."""

HALF = (5.0, 3.3)
"""Inches of one of two charts side by side."""

MATPLOTLIB: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llm-qfl",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.parse_math": False,  # a site may be called $x$
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}


def legend_line(index: int) -> str:
    """Return CSS that shows a client's line in the legend."""
    kind, _ = DASHES[index // len(CLIENT_COLOURS) % len(DASHES)]
    return f"border-top: 3px {kind} var(--c{index % len(CLIENT_COLOURS)})"


def client_style(index: int) -> dict[str, Any]:
    """Return colour and dashes of a client; colours repeat after ten, with other dashes."""
    _, dashes = DASHES[index // len(CLIENT_COLOURS) % len(DASHES)]
    return {"color": CLIENT_COLOURS[index % len(CLIENT_COLOURS)], "linestyle": dashes}


def chart(size: tuple[float, float], draw: Callable[[Any, Any], None], label: str) -> str:
    """Draw one chart as inline SVG that scales to its column and takes the page's colours.

    Parameters
    ----------
    size : tuple of float
        Width and height, inches.
    draw : callable
        Called with matplotlib's figure and axes.
    label : str
        What it shows, for those who cannot see it.
    """
    import matplotlib
    from markupsafe import escape
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(MATPLOTLIB):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, figure.add_subplot())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    head, body = buffer.getvalue().split("<svg", 1)[1].split(">", 1)
    head = re.sub(r'\s(?:width|height|viewBox)="[^"]*"', "", head)
    width, height = (round(72 * inches) for inches in size)
    return (
        f'<svg role="img" aria-label="{escape(label)}" style="max-width:{round(width * 1.5)}px" '
        f'viewBox="0 0 {width} {height}"{head}>{_themed(body)}'
    )


def _themed(svg: str) -> str:
    """Let the page choose the colours of `THEME`; others, of heat maps' cells, stay."""
    return re.sub(
        r"((?:fill|stroke): )(#[0-9a-f]{6})",
        lambda m: m[1] + (f"var(--{THEME[m[2]]})" if m[2] in THEME else m[2]),
        svg,
    )


def curves(record: Record, key: str, title: str) -> str:
    """Draw the ``loss`` or ``accuracy`` by round: the global model's thick, each client's thin."""
    values, clients = record.series(key), record.grid(key)
    if not known(values) and not any_known(clients):
        return ""

    def draw(figure: Any, axes: Any) -> None:
        client_lines(axes, clients, linewidth=1.1, alpha=0.9)
        axes.plot(record.round_ids, values, color=INK, linewidth=2.6, marker="o")
        best = record.summary.get("best_round")
        if best in record.round_ids:
            value = values[record.round_ids.index(int(best))]
            axes.plot([best], [value], "o", ms=10, mfc="none", mec=ACCENT, mew=2)
        rounds_axis(axes, record.round_ids)
        axes.set_ylabel(title)
        if key == "accuracy":
            percent_axis(axes)

    return chart(HALF, draw, f"{title} by round: global model and each client")


def any_known(grid: DataFrame) -> bool:
    """Whether a table holds any figure."""
    return bool(grid.notna().any(axis=None))


def client_lines(axes: Any, grid: DataFrame, **style: Any) -> None:
    """Draw a line a client; of many the median, the middle half and the whole range.

    Of a crowd the middle is 10 to 90 %.
    """
    rounds = list(grid.columns)
    if len(grid) <= MANY_CLIENTS:
        for index, row in enumerate(grid.to_numpy()):
            axes.plot(rounds, row, marker=".", **style, **client_style(index))
        return
    edge = 0.1 if len(grid) > CROWD else 0.25
    least, low, middle, high, most = grid.quantile([0, edge, 0.5, 1 - edge, 1]).to_numpy()
    colour = CLIENT_COLOURS[0]
    axes.fill_between(rounds, least, most, color=colour, alpha=0.15, linewidth=0)
    axes.fill_between(rounds, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(rounds, middle, marker=".", color=colour)


def ratios(record: Record) -> str:
    """Draw each client's quantum loss over its LLM's loss, by round."""
    grid = record.grid("ratio")
    if not any_known(grid):
        return ""

    def draw(figure: Any, axes: Any) -> None:
        axes.axhline(1.0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        client_lines(axes, grid)
        rounds_axis(axes, record.round_ids)
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
        rounds_axis(axes, record.round_ids)
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
        rounds_axis(axes, record.round_ids)
        axes.set_ylim(0, max(0.1, *(1.08 * value for value in known(values))))
        axes.set_ylabel("time spent waiting")
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        percent_axis(axes)

    return chart(HALF, draw, "Share of the clients' time spent waiting, by round")


def heat_map(record: Record, key: str, unit: str, colours: str, *, marked: bool = False) -> str:
    """Draw a figure by client and round as a heat map.

    Parameters
    ----------
    record : Record
        The run.
    key : str
        ``steps`` or ``idle_seconds`` of the ``client`` events.
    unit : str
        What the colour bar shows.
    colours : str
        matplotlib's name of a light-to-dark colour map.
    marked : bool
        Whether to mark who trained and was not aggregated, and who was dropped or failed.
    """
    grid = record.grid(key)
    if not any_known(grid):
        return ""
    cells = grid.to_numpy()
    places = 0 if key == "steps" else 2 if grid.max(axis=None) < 10 else 1

    def draw(figure: Any, axes: Any) -> None:
        image = axes.imshow(cells, aspect="auto", cmap=colours, vmin=0)
        if max(cells.shape) <= MANY_ROUNDS:
            _write_cells(axes, cells, places, image)
        if marked:
            _draw_marks(axes, record)
        _grid_axes(axes, record)
        bar = figure.colorbar(image, ax=axes, pad=0.015, fraction=0.035)
        bar.outline.set_visible(False)
        bar.set_label(unit)

    height = max(2.0, min(9.0, 1.2 + 0.34 * len(cells)))
    return chart((WIDE[0], height), draw, f"{unit} by client and round")


def _write_cells(axes: Any, cells: Any, places: int, image: Any) -> None:
    """Write each cell's figure, light on dark and dark on light; nothing where there is none."""
    for y, row in enumerate(cells):
        for x, value in enumerate(row):
            if math.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
                colour = DARK_TEXT if light > 0.5 else "white"
                axes.text(x, y, f"{value:.{places}f}", ha="center", va="center", color=colour)


MARKS: dict[str, dict[str, Any]] = {
    "trained, not aggregated": {"marker": "o", "facecolors": "none", "edgecolors": "#c98a1b"},
    "dropped or failed": {"marker": "x", "color": WARN},
}
"""Marks on the cells of updates that did not count: a ring, and a cross."""


def _draw_marks(axes: Any, record: Record) -> None:
    for name, points in marks(record).items():
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, s=190, linewidths=2, label=name, **MARKS[name])
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handletextpad=0.3)


def marks(record: Record) -> dict[str, list[tuple[int, int]]]:
    """Return the cells (round's place, client's place) of updates that did not count."""
    uncounted, lost = MARKS
    found: dict[str, list[tuple[int, int]]] = {uncounted: [], lost: []}
    dropped = {(e["client"], e["round"]) for e in record.clients if e.get("dropped")}
    answered = {(e["client"], e["round"]) for e in record.clients}
    columns = {at: place for place, at in enumerate(record.round_ids)}
    rows = {client: place for place, client in enumerate(record.client_ids)}
    for event in record.rounds:
        at = event["round"]
        for client in sorted({*event.get("participants", [])} - {*event.get("aggregated", [])}):
            silent = bool(answered) and (client, at) not in answered
            name = lost if silent or (client, at) in dropped else uncounted
            found[name].append((columns[at], rows[client]))
    return found


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
        axes.set(xlabel="predicted", ylabel="true")
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
        for one in bins:
            right = one["accuracy"]
            low, high = wilson_interval(right, one["rows"]) or (0.0, 1.0)
            ends = [[right - low], [high - right]]
            axes.errorbar(one["confidence"], right, ends, fmt="o", color=ACCENT, ecolor=MUTED)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="right")
        percent_axis(axes)
        percent_axis(axes, axes.xaxis)

    return chart((4.4, 3.3), draw, "Share of right predictions by their confidence, test rows")


def _grid_axes(axes: Any, record: Record) -> None:
    """Label a clients-by-rounds grid."""
    every = max(1, math.ceil(len(record.round_ids) / MANY_ROUNDS))
    places = range(0, len(record.round_ids), every)
    axes.set_xticks(places, [str(at) for at in record.round_ids[::every]])
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


def rounds_axis(axes: Any, rounds: Sequence[int]) -> None:
    """Label the horizontal axis with rounds, from the first to the last."""
    whole_rounds(axes)
    axes.set_xlim(min(rounds) - 0.5, max(rounds) + 0.5)


def whole_rounds(axes: Any) -> None:
    """Label the horizontal axis with rounds, whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.set_xlabel("round")


def percent_axis(axes: Any, axis: Any = None) -> None:
    """Show an axis, the vertical one if none is named, in per cent; decimals for close ticks."""
    from matplotlib.ticker import PercentFormatter

    (axis or axes.yaxis).set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
