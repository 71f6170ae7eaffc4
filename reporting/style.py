"""Colours and matplotlib's settings: one look for all charts."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

INK = "#1f2933"
MUTED = "#5b6770"
LINE = "#d9dee3"
ACCENT = "#0b5fa5"
WARN = "#b42318"

CLIENT_COLOURS = (
    "#0b6fb8",
    "#c2410c",
    "#15803d",
    "#8b3fb0",
    "#a16207",
    "#be185d",
    "#0e7490",
    "#4d5b6a",
    "#6b8e00",
    "#7c2d12",
)
"""At least 4.5 : 1 on white, and told apart by people with the common colour blindnesses."""

THEME = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    WARN: "bad",
    "#eceff2": "grid",
    **{colour: f"c{place}" for place, colour in enumerate(CLIENT_COLOURS)},
}
"""Colours that the page has for a light and for a dark screen, as CSS variables by name."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))

WIDE = (9.2, 3.2)
"""Inches of a chart that has the page's width."""

HALF = (5.0, 3.3)
"""Inches of one of two charts side by side."""

SETTINGS: dict[str, Any] = {
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
    "grid.color": "#eceff2",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
}


def legend_line(index: int) -> str:
    """Return CSS that shows a client's line in the legend."""
    kind = ("solid", "dashed", "dotted", "dashed")[index // len(CLIENT_COLOURS) % len(DASHES)]
    return f"border-top: 3px {kind} var(--c{index % len(CLIENT_COLOURS)})"


def client_style(index: int) -> dict[str, Any]:
    """Return colour and dashes of a client; colours repeat after ten, with other dashes."""
    colour = CLIENT_COLOURS[index % len(CLIENT_COLOURS)]
    return {"color": colour, "linestyle": DASHES[index // len(CLIENT_COLOURS) % len(DASHES)]}


def chart(size: tuple[float, float], draw: Callable[[Any, Any], None], label: str) -> str:
    """Draw one chart and return it as inline SVG.

    Parameters
    ----------
    size : tuple of float
        Width and height, inches.
    draw : callable
        Called with matplotlib's figure and axes.
    label : str
        What it shows, for those who cannot see it.

    Returns
    -------
    str
        An ``<svg>`` element that scales to its column.
    """
    import matplotlib
    from markupsafe import escape
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    svg = buffer.getvalue()
    svg = themed(svg[svg.index("<svg") :])
    width, height = (round(72 * inches) for inches in size)
    head = f'<svg role="img" aria-label="{escape(label)}" style="max-width:{round(width * 1.5)}px"'
    body = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg[4 : svg.index(">")], count=2)
    return f'{head} viewBox="0 0 {width} {height}"{_without_viewbox(body)}{svg[svg.index(">") :]}'


def themed(svg: str) -> str:
    """Let the page choose the colours of `THEME`; others, of heat maps' cells, stay."""
    return re.sub(
        r"((?:fill|stroke): )(#[0-9a-f]{6})",
        lambda m: m[1] + (f"var(--{THEME[m[2]]})" if m[2] in THEME else m[2]),
        svg,
    )


def _without_viewbox(attributes: str) -> str:
    return re.sub(r'\sviewBox="[^"]*"', "", attributes)
