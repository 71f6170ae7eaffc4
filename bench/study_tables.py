"""A finished study as Markdown tables: ``python -m bench.study_tables FOLDER``.

± is the standard deviation over seeds; differences are paired by seed, in brackets their 95 %
bootstrap intervals. Costs are those until the target; ``>=``: some runs never got there and are
counted with all that they paid; then the median, in which they count as above what they paid; then
per cent saved, and the seeds that got there for less. Rounds to the same loss: until the validation
loss is that of the reference's best round; ``-``: never.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.tables import head, row
from reporting.study_figures import costs, summarise
from reporting.study_record import SCORES, StudyRecord, read_study_record

Cell = tuple[Any, ...]
Row = Mapping[str, Any]

ENDS = ("", "_low", "_high")

UNITS = {"circuits": 1e6, "spend": 1e6, "seconds": 1e3, "idle_seconds": 1e3, "bytes": 1e6}
"""What a cost is shown in; rounds are counted."""

TITLES = {
    "circuits": "circuits, millions",
    "spend": "spend, millions",
    "seconds": "seconds, 1,000",
    "idle_seconds": "idle, 1,000 s",
    "bytes": "MB",
}


def spread(mean: float, deviation: float, digits: int) -> str:
    """Return ``mean ± deviation``; the mean alone of one run, ``-`` of none."""
    if math.isnan(mean):
        return "-"
    text = f"{mean:.{digits}f}"
    return text if math.isnan(deviation) else f"{text} ± {deviation:.{digits}f}"


def bounds(values: Sequence[float], digits: int) -> str:
    """Return ``value [low, high]``, signed; ``-`` where there is none."""
    value, low, high = values
    if math.isnan(value):
        return "-"
    text = f"{value:+.{digits}f}"
    return text if math.isnan(low) else f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def scores(record: StudyRecord) -> str:
    """Return the test scores of each cell, and the study's own figures."""
    compared = ("accuracy", "macro_recall", "loss")
    plain = [key for key in ("validation_loss", *record.figures) if key not in SCORES]
    titles = [*record.axes, "runs"]
    for key in compared:
        titles += [key.replace("_", "-"), "to the reference [95 %]"]
    rows = [head([*titles, *plain, "circuits, millions", "rounds", "rounds to the same loss"])]
    for one in summarise(record).to_dict("records"):
        cells = [*(str(one[axis]) for axis in record.axes), str(one["runs"])]
        for key in compared:
            cells.append(spread(one[key], one[f"{key}_sd"], 4))
            cells.append(bounds([one[f"{key}_gain{end}"] for end in ENDS], 4))
        cells += [spread(one[key], one[f"{key}_sd"], 4) for key in plain]
        cells += [f"{one['circuits'] / 1e6:.2f}", f"{one['rounds']:.1f}"]
        rows.append(row([*cells, same_loss(record, tuple(one[axis] for axis in record.axes))]))
    return "\n".join(rows)


def same_loss(record: StudyRecord, cell: Cell) -> str:
    """Return the rounds until runs reach the best validation loss of the reference's runs.

    Returns
    -------
    str
        The mean where all get there, then each seed's.
    """
    mine, theirs = _losses(record, cell), _losses(record, record.reference_of(cell))
    found = [
        first_round(losses, min(theirs[seed])) for seed, losses in mine.items() if seed in theirs
    ]
    each = ", ".join("-" if number is None else str(number) for number in found)
    reached = [number for number in found if number is not None]
    if not found or len(reached) < len(found):
        return each
    return f"{statistics.mean(reached):.1f} ({each})"


def first_round(losses: Sequence[float], target: float) -> int | None:
    """Return the first round, from 1, whose loss is at most the target; None: never."""
    return next((number for number, loss in enumerate(losses, 1) if loss <= target), None)


def _losses(record: StudyRecord, cell: Cell) -> dict[int, list[float]]:
    """Return each completed run's validation losses, by seed."""
    runs = zip(record.table.to_dict("records"), record.curves, strict=True)
    return {
        int(run["seed"]): list(curve["loss"])
        for run, curve in runs
        if tuple(run[axis] for axis in record.axes) == cell and run["status"] == "completed"
    }


def paid(record: StudyRecord) -> str:
    """Return what each cell paid until the target; nothing without a target."""
    found = list(costs(record).to_dict("records"))
    names = list(dict.fromkeys(one["cost"] for one in found))
    cells: dict[Cell, list[Row]] = {}
    for one in found:
        cells.setdefault(tuple(one[axis] for axis in record.axes), []).append(one)
    if not cells:
        return ""
    rows = [head([*record.axes, "reached", *(TITLES.get(name, name) for name in names)])]
    for cell, each in cells.items():
        there = f"{each[0]['reached']}/{each[0]['runs']}"
        rows.append(row([*map(str, cell), there, *map(_cost, each)]))
    return "\n".join(rows)


def _cost(one: Row) -> str:
    unit = UNITS.get(one["cost"], 1)
    text = f"{one['mark']} {spread(one['mean'] / unit, one['sd'] / unit, 2)}".strip()
    text += f"; median {spread(one['median'] / unit, math.nan, 2)}"
    if math.isnan(one["saved"]):
        return text
    saved = bounds([100 * one[f"saved{end}"] for end in ENDS], 1)
    saved = f"{one['saved_mark']} {saved} %".strip()
    return f"{text}; {saved}, {one['wins']:.0f}/{one['pairs']:.0f}"


def main() -> None:
    """Print the tables of a study's folder."""
    parser = argparse.ArgumentParser(prog="bench.study_tables", description=__doc__)
    parser.add_argument("folder", type=Path)
    record = read_study_record(parser.parse_args().folder)
    parts: Iterator[str] = (table(record) for table in TABLES)
    print("\n\n".join(filter(None, parts)))


TABLES: tuple[Callable[[StudyRecord], str], ...] = (scores, paid)

if __name__ == "__main__":
    main()
