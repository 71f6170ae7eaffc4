"""`llm-qfl compare`: put runs side by side, in a process of its own.

The launcher does not import the apps, and the picture is drawn with matplotlib.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import UserError, real_path
from core.formatting import byte_size, duration, figure, percent, span, toml_value, whole
from llm_qfl.cli.children import call_module, print_json
from llm_qfl.cli.formatting import clip, one_line

FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("status", "status", str),
    ("agent", "agent", str),
    ("data", "data", str),
    ("test_accuracy", "test accuracy", percent),
    ("test_interval", "  95 % interval", span),
    ("test_loss", "test loss", figure),
    ("majority", "  majority class", percent),
    ("linear", "  logistic regression", percent),
    ("best_validation", "best validation", percent),
    ("rounds", "rounds", whole),
    ("circuits", "circuits", whole),
    ("simulated", "  simulated", whole),
    ("spend", "spend", whole),
    ("idle_share", "idle share", percent),
    ("bytes", "sent", byte_size),
    ("seconds", "time", duration),
)
"""Keys of a run's figures, their names, and how they are written."""

REACHED: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("round", "  round", whole),
    ("circuits", "  circuits", whole),
    ("idle_seconds", "  idle time", duration),
    ("bytes", "  sent", byte_size),
)

WIDEST = 26
"""Characters of a column."""


def compare(runs: Sequence[str], target: float | None, out: Path, *, as_json: bool = False) -> int:
    """Print runs side by side and draw them in one picture.

    Parameters
    ----------
    runs : sequence of str
        Results folders, two or more.
    target : float or None
        Validation accuracy whose costs are compared; None: the lowest of the runs' best.
    out : Path
        The page to write.
    as_json : bool
        Print JSON instead of tables.

    Raises
    ------
    UserError
        If there are fewer than two runs, one is no run, or the target is no share.
    LaunchError
        If the page could not be made.
    """
    folders = [str(real_path(run)) for run in runs]
    if len(set(folders)) < 2 or len(set(folders)) < len(folders):
        given = "one run" if len(set(folders)) < 2 else "a run named twice"
        raise UserError(given, "two or more runs, each once", "name another run")
    if target is not None and not 0 < target <= 1:
        raise UserError(f"--target {target}", "an accuracy above 0, at most 1", "say 0.9 for 90 %")
    page = real_path(out)
    request = {"folders": folders, "target": target, "out": str(page)}
    failed = "the runs could not be compared"
    printed = call_module("reporting.compare", failed=failed, text=json.dumps(request))
    found = json.loads(printed)
    if as_json:
        print_json({**found, "page": str(page)})
        return 0
    print("\n".join(compare_lines(found)))
    print(f"\npicture   {page}")
    return 0


def compare_lines(found: Mapping[str, Any]) -> list[str]:
    """Write a comparison as lines: the runs, their figures, the target's costs, the settings."""
    runs = found["runs"]
    letters = [_letter(place) for place in range(len(runs))]
    pairs = list(zip(letters, runs, strict=True))
    lines = [f"{letter:<4}{one_line(run['name'])}" for letter, run in pairs]
    lines += [f"    {letter}: {one_line(run['error'])}" for letter, run in pairs if run["error"]]
    for letter, run in pairs:
        start = f"    {letter}: damaged and left out: "
        lines += [start + one_line(damage) for damage in run["damaged"]]
    if found["warning"]:
        lines.append(f"warning: {one_line(found['warning'])}")
    rows = [
        [name, *(_cell(run[key], write) for run in runs)]
        for key, name, write in FIGURES
        if any(run[key] is not None for run in runs)
    ]
    lines += ["", *_table([["", *letters], *rows])]
    lines += ["", *_reached(found, letters), *_seeds(found, letters)]
    differ = [
        [key, *("-" if value is None else clip(toml_value(value), WIDEST) for value in values)]
        for key, values in found["settings"].items()
    ]
    if not differ:
        return [*lines, "", "the settings are the same"]
    return [*lines, "", *_table([["settings that differ", *letters], *differ])]


def _seeds(found: Mapping[str, Any], letters: Sequence[str]) -> list[str]:
    """Return the mean of runs that differ in their seed alone."""
    lines = [""]
    for group in found["groups"]:
        known = [a for k in group if (a := found["runs"][k]["test_accuracy"]) is not None]
        if len(group) > 1 and known:
            who = " ".join(letters[k] for k in group)
            mean, ends = percent(sum(known) / len(known)), span((min(known), max(known)))
            text = f"{who}: other seeds of one run; test accuracy {mean} (mean), {ends}"
            lines += textwrap.wrap(text, 80, subsequent_indent="  ")
    return lines if len(lines) > 1 else []


def _reached(found: Mapping[str, Any], letters: Sequence[str]) -> list[str]:
    """Return what each run spent until it first reached the target."""
    if found["target"] is None:
        return ["no run has finished a round"]
    how = "as asked" if found["given"] else "the lowest of the runs' best"
    reached = [run["reached"] for run in found["runs"]]
    rows = [
        [name, *("never" if one is None else _cell(one[key], write) for one in reached)]
        for key, name, write in REACHED
    ]
    return [
        f"first at validation accuracy {percent(found['target'])} ({how}),",
        f"{found['smoothing']};",
        "costs until then, preparation included",
        *_table([["", *letters], *rows]),
    ]


def _cell(value: Any, write: Callable[[Any], str]) -> str:
    return "-" if value is None else clip(one_line(write(value)), WIDEST)


def _table(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Align a table: names left, figures right; columns that do not fit go below."""
    width = width or shutil.get_terminal_size((80, 24)).columns
    sizes = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    blocks: list[list[int]] = [[]]
    for place, size in enumerate(sizes[1:], 1):
        used = sizes[0] + sum(sizes[k] + 2 for k in blocks[-1])
        if blocks[-1] and used + size + 2 > width:
            blocks.append([])
        blocks[-1].append(place)
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        for row in rows:
            cells = (row[place].rjust(sizes[place]) for place in block)
            lines.append("  ".join([row[0].ljust(sizes[0]), *cells]).rstrip())
    return lines


def _letter(place: int) -> str:
    """Name a column: A to Z, then A2, B2."""
    turn, letter = divmod(place, 26)
    return chr(ord("A") + letter) + (str(turn + 1) if turn else "")
