"""What a study's folder holds beside its runs: tables, and ``study.html``, from its files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import write_bytes, write_json, write_text
from reporting.charts import legend_line
from reporting.compare import NAMES
from reporting.compared_run import json_rows
from reporting.formatting import NONE, amount, duration, figure, percent, setting_value, size, whole
from reporting.page import Page, Section, Table, section
from reporting.study_charts import forest, learning_curves
from reporting.study_figures import costs, summarise
from reporting.study_record import StudyRecord, read_study_record

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_CELLS = 200
"""Rows of a table; the files have all."""

MOST_COMPARED = 40
"""Rows of a forest plot: the largest differences both ways."""

MOST_CURVES = 8
"""Cells whose learning curves are drawn: the reference, and the most accurate ones."""

MOST_SETTINGS = 12
"""Columns of settings."""

SCORES = {
    "accuracy": ("Accuracy", percent),
    "macro_recall": ("Macro-recall", percent),
    "macro_f1": ("Macro-F1", percent),
    "loss": ("Loss, nats", figure),
}
COSTS = {
    "rounds": ("Rounds", amount),
    "circuits": ("Circuits", whole),
    "spend": ("Spend", whole),
    "seconds": ("Time", duration),
    "idle_seconds": ("Waited", duration),
    "bytes": ("Sent", size),
}

Rows = Sequence[Mapping[str, Any]]


def write_study(folder: Path) -> Path:
    """Write a study's tables and its page into its folder.

    Returns
    -------
    Path
        The page: one file that needs no network.

    Raises
    ------
    DataError
        If the folder holds no study.
    """
    record = read_study_record(folder)
    summary, paid = summarise(record), costs(record)
    for name, frame in (("table", record.table), ("cells", summary)):
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    write_json(folder / "table.json", json_rows(record.table))
    write_json(folder / "cells.json", {"cells": json_rows(summary), "costs": json_rows(paid)})
    page = build_study(record, summary, paid)
    write_bytes(folder / "study.html", page.encode("utf-8", "backslashreplace"))
    return folder / "study.html"


def build_study(record: StudyRecord, summary: DataFrame, paid: DataFrame) -> str:
    """Build the page of a study; HTML in one file that needs no network.

    Parameters
    ----------
    record : StudyRecord
        The study.
    summary, paid : DataFrame
        What `reporting.study_figures` makes of it.
    """
    cells = json_rows(summary)
    for row in cells:
        row["name"] = cell_name(record, row)
    drawn = _drawn(record, cells)
    done, all_runs = sum(row["runs"] for row in cells), len(record.table)
    sections = [
        _cells(record, cells),
        _differences(record, cells),
        _curves(record, drawn),
        _target(record, json_rows(paid)),
        _settings(record, cells),
        _failed(record),
        _runs(record),
    ]
    if record.plan.get("search"):  # trials are not compared by seed, and stop at no target
        del sections[3], sections[1]
    tried = [row for row in cells if not str(row.get("trial")).endswith("tested")]
    what = f"{len(tried)} trials" if record.plan.get("search") else f"{len(cells)} cells"
    return Page(
        title=f"{what}, {all_runs} runs",
        folder=record.folder.name,
        sections=sections,
        legend=[(legend_line(k), str(cells[place]["name"])) for k, place in enumerate(drawn)],
        status="completed" if done == all_runs else "unfinished",
        outcome=_outcome(record, done, all_runs),
        kind="study",
        maker="llm-qfl study",
    ).html()


def cell_name(record: StudyRecord, row: Mapping[str, Any]) -> str:
    """Return a cell's values in one line, of the axes that have more than one."""
    varied = [axis for axis, values in record.plan["axes"].items() if len(values) > 1]
    return ", ".join(_value(row[axis]) for axis in varied or record.axes)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else setting_value(value)


def _outcome(record: StudyRecord, done: int, all_runs: int) -> str:
    failed = int((record.table["status"] == "failed").sum())
    text = f"{done} of {all_runs} runs are complete"
    text += f", {failed} failed" if failed else ""
    best = record.plan.get("best")
    if best:
        loss = figure(best["validation_loss"])
        named = ", ".join(
            f"{key} = {_value(value)}"
            for key, value in best.items()
            if key not in ("trial", "validation_loss")
        )
        return f"{text}. The best validation loss is {loss} (trial {best['trial']}): {named}."
    reference = record.plan.get("reference") or {}
    named = ", ".join(f"{axis} = {_value(value)}" for axis, value in reference.items())
    return f"{text}. The reference is {named}." if named else f"{text}."


def _cells(record: StudyRecord, cells: Rows) -> Section:
    """Show each cell's scores and costs; of a search the best trials first."""
    if record.plan.get("search"):
        cells = sorted(cells, key=lambda row: _first(row["validation_loss"]))
        cells = sorted(cells, key=lambda row: row["accuracy"] is None)  # the tested one on top
    scores = {**SCORES, **{path: (path, figure) for path in record.figures}}
    scores["validation_loss"] = ("Validation loss, nats", figure)
    scores = {key: it for key, it in scores.items() if any(row[key] is not None for row in cells)}
    head = [*record.axes, "Runs", "Failed", *(name for name, _ in scores.values())]
    head += [name for name, _ in COSTS.values()]
    rows = [
        [
            *(_value(row[axis]) for axis in record.axes),
            str(row["runs"]),
            str(row["failed"] + row["missing"]),
            *(_spread(row, key, write) for key, (_, write) in scores.items()),
            *(_written(row[key], write) for key, (_, write) in COSTS.items()),
        ]
        for row in cells[:MOST_CELLS]
    ]
    table = Table(head, rows, range(len(record.axes), len(head)))
    return section("study", "cells", {"left": _left(cells, MOST_CELLS)}, tables=[table])


def _first(loss: float | None) -> float:
    return float("inf") if loss is None else loss


def _left(rows: Sequence[Any], most: int) -> str:
    """Say how many rows are not shown."""
    return f" {len(rows) - most} more are in the files." if len(rows) > most else ""


def _spread(row: Mapping[str, Any], key: str, write: Any) -> str:
    if row[key] is None:
        return NONE
    sd = row[f"{key}_sd"]
    return str(write(row[key])) + (f" ± {write(sd)}" if sd is not None else "")


def _written(value: Any, write: Any) -> str:
    return NONE if value is None else str(write(value))


def _differences(record: StudyRecord, cells: Rows) -> Section:
    """Draw and list the differences from the reference."""
    compared = [row for row in cells if row["accuracy_gain"] is not None]
    ends = sorted(compared, key=lambda row: float(row["accuracy_gain"]))
    if len(ends) > MOST_COMPARED:
        kept = [*ends[: MOST_COMPARED // 2], *ends[-MOST_COMPARED // 2 :]]
        compared = [row for row in compared if row in kept]
    pictures = [forest(compared, key, name) for key, (name, _) in SCORES.items()]
    rows = [
        [str(row["name"]), name, *_test(row, key)]
        for row in compared
        for key, (name, _) in SCORES.items()
    ]
    head = ("Cell", "Score", "Difference", "95 % interval", "p", "p, Holm")
    table = Table(head, rows, range(2, 6), folded="The figures")
    values = {"left": _left(ends, MOST_COMPARED)}
    return section("study", "differences", values, pictures=pictures, tables=[table])


def _test(row: Mapping[str, Any], key: str) -> list[str]:
    gain, low, high, p, adjusted = (
        row[f"{key}_{part}"] for part in ("gain", "gain_low", "gain_high", "p", "holm")
    )
    if gain is None:
        return [NONE] * 4
    between = NONE if low is None else f"{low:+.4f} to {high:+.4f}"
    return [f"{gain:+.4f}", between, *(NONE if v is None else f"{v:.3g}" for v in (p, adjusted))]


def _drawn(record: StudyRecord, cells: Rows) -> list[int]:
    """Return places of the cells whose curves are drawn."""
    if len(cells) <= MOST_CURVES:
        return list(range(len(cells)))
    key, down = ("validation_loss", 1) if record.plan.get("search") else ("accuracy", -1)
    order = sorted(range(len(cells)), key=lambda k: _first(cells[k][key]) * down)
    known = [k for k in order if cells[k][key] is not None]
    references = [k for k in known if _is_reference(record, cells[k])][:1]
    return sorted([*references, *(k for k in known if k not in references)][:MOST_CURVES])


def _is_reference(record: StudyRecord, row: Mapping[str, Any]) -> bool:
    cell = tuple(row[axis] for axis in record.axes)
    return record.reference_of(cell) == cell


def _curves(record: StudyRecord, drawn: Sequence[int]) -> Section:
    """Draw the learning curves of some cells, by rounds and by circuits."""
    names = list(record.table[list(record.axes)].itertuples(index=False, name=None))
    of = {
        k: [record.curves[at] for at, name in enumerate(names) if name == record.cells[place]]
        for k, place in enumerate(drawn)
    }
    target = record.plan.get("target")
    goal = target if isinstance(target, float) else None
    pictures = [
        learning_curves(of, across, key, target=goal)
        for key in ("accuracy", "loss")
        for across in ("round", "circuits")
    ]
    left = ""
    if len(drawn) < len(record.cells):
        left = f" Of {len(record.cells)} cells the {len(drawn)} best, the reference among them."
    return section("study", "curves", {"left": left}, pictures=pictures, legend="clients")


def _target(record: StudyRecord, paid: Rows) -> Section:
    """List what reaching the target cost; empty without one."""
    of: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in paid:
        of.setdefault(cell_name(record, row), {})[row["cost"]] = row
    rows = [
        [name, "{reached} of {runs}".format(**by["rounds"]), *(_paid(by[cost]) for cost in COSTS)]
        for name, by in of.items()
    ][:MOST_CELLS]
    means = Table(("Cell", "Reached", *(name for name, _ in COSTS.values())), rows)
    shown = ("circuits", "spend", "rounds", "idle_seconds")
    saved = [
        [name, *(_saved(by[cost]) for cost in shown)]
        for name, by in of.items()
        if by["rounds"]["saved"] is not None
    ][:MOST_CELLS]
    titles = [f"{COSTS[cost][0]} saved" for cost in shown]
    note = section("study", "saved").note
    table = Table(("Cell", *titles), saved, title="Saved against the reference", note=note)
    target, margin = record.plan.get("target"), record.plan.get("margin") or 0
    goal = percent(target) if isinstance(target, float) else "that of the reference's end"
    goal += f", less {percent(margin)}" if margin and target == "reference" else ""
    return section("study", "target", {"goal": goal}, tables=[means, table])


def _paid(row: Mapping[str, Any]) -> str:
    write = COSTS[row["cost"]][1]
    return f"{row['mark']} {_written(row['mean'], write)}".strip()


def _saved(row: Mapping[str, Any]) -> str:
    if row["saved"] is None:
        return NONE
    text = f"{row['saved_mark']} {percent(row['saved'])}".strip()
    if row["saved_low"] is not None:
        text += f" [{percent(row['saved_low'])}, {percent(row['saved_high'])}]"
    return f"{text}, {whole(row['wins'])}/{whole(row['pairs'])}"


def _settings(record: StudyRecord, cells: Rows) -> Section:
    """List the settings that differ between cells."""
    names = list(record.table[list(record.axes)].itertuples(index=False, name=None))
    pairs = list(zip(names, record.settings, strict=True))
    known = {cell: settings for cell, settings in reversed(pairs) if settings}
    first = {cell: known[cell] for cell in record.cells if cell in known}
    keys = list(dict.fromkeys(key for settings in first.values() for key in settings))
    differ = [
        key
        for key in keys
        if key not in (*NAMES, "run.seed") and len({str(s.get(key)) for s in first.values()}) > 1
    ][:MOST_SETTINGS]
    rows = [
        [
            cell_name(record, dict(zip(record.axes, cell, strict=True))),
            *(_value(settings.get(key)) for key in differ),
        ]
        for cell, settings in list(first.items())[:MOST_CELLS]
    ]
    return section("study", "settings", tables=[Table(("Cell", *differ), rows if differ else [])])


def _failed(record: StudyRecord) -> Section:
    """List what is not complete, with the reason; and what could not be read."""
    lacking = json_rows(record.table[record.table["status"] != "completed"])
    rows = [
        [cell_name(record, row), str(row["seed"]), str(row["status"]), str(row["error"] or NONE)]
        for row in lacking[:MOST_CELLS]
    ]
    table = Table(("Cell", "Seed", "Status", "Why"), rows, (1,))
    damaged = [f"damaged and left out: {line}" for line in record.damaged[:MOST_CELLS]]
    return section("study", "failed", tables=[table], warnings=damaged)


def _runs(record: StudyRecord) -> Section:
    """List the runs."""
    rows = json_rows(record.table)
    cells = [
        [
            *(_value(row[axis]) for axis in record.axes),
            str(row["seed"]),
            *(_written(row[key], write) for key, (_, write) in SCORES.items()),
            *(_written(row[key], COSTS[key][1]) for key in ("rounds", "circuits")),
            Path(str(row["folder"])).name,
        ]
        for row in rows[:MOST_CELLS]
    ]
    head = [*record.axes, "Seed", *(name for name, _ in SCORES.values()), "Rounds", "Circuits"]
    places = range(len(record.axes), len(head))
    table = Table([*head, "Folder"], cells, places, folded=f"{len(cells)} runs", tall=True)
    return section("study", "runs", {"left": _left(rows, MOST_CELLS)}, tables=[table])
