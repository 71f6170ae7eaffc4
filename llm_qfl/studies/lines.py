"""A study in a terminal: its cells, and what failed; and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.formatting import figure, percent, whole
from core.storage.files import plain
from llm_qfl.studies.study import Study
from reporting.compared_run import json_rows

SHOWN = (("accuracy", percent), ("macro_recall", percent), ("loss", figure))


def study_json(study: Study) -> dict[str, Any]:
    """Return a study's tables as JSON has them."""
    return {
        "folder": str(study.folder),
        "page": str(study.folder / "study.html"),
        "axes": list(study.varied),
        "cells": plain(json_rows(study.summary)),
        "costs": plain(json_rows(study.costs)),
        "failed": plain(json_rows(study.table[study.table["status"] != "completed"])),
    }


def study_lines(study: Study) -> str:
    """Write a study as lines: a cell each, its differences, its cost to the target, failures."""
    lines = []
    for row in json_rows(study.summary):
        cell = _cell(study, row)
        lines.append(f"{cell}: {row['runs']} runs" + _failures(row))
        if "trial" in study.varied and row["validation_loss"] is not None:  # a search's objective
            lines.append(f"  validation loss {figure(row['validation_loss'])}")
        lines += [f"  {_score(row, key, write)}" for key, write in SHOWN if row[key] is not None]
        lines += _reached(study, row)
    for row in json_rows(study.table[study.table["status"] != "completed"]):
        cell = _cell(study, row)
        lines.append(f"{row['status']}: {cell}, seed {row['seed']}: {row['error']}".rstrip(": "))
    return "\n".join([*lines, f"page      {study.folder / 'study.html'}"])


def _cell(study: Study, row: Mapping[str, Any]) -> str:
    values = [row[axis] for axis in study.varied]
    return ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


def _failures(row: Mapping[str, Any]) -> str:
    parts = [
        f"{row[key]} {word}"
        for key, word in (("failed", "failed"), ("missing", "missing"))
        if row[key]
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _score(row: Mapping[str, Any], key: str, write: Any) -> str:
    """Write a score: mean, spread, and the difference from the reference."""
    text = f"{key.replace('_', '-'):13}{write(row[key])}"
    if row[f"{key}_sd"] is not None:
        text += f" ± {write(row[f'{key}_sd'])}"
    if row[f"{key}_gain"] is None:
        return text
    text += f", to the reference {row[f'{key}_gain']:+.4f}"
    if row[f"{key}_gain_low"] is not None:
        low, high = row[f"{key}_gain_low"], row[f"{key}_gain_high"]
        text += f" [{low:+.4f}, {high:+.4f}], p {row[f'{key}_holm']:.3g} (Holm)"
    return text


def _reached(study: Study, row: Mapping[str, Any]) -> list[str]:
    """Write what reaching the target cost."""
    costs = study.costs
    for axis in study.varied:
        costs = costs[costs[axis] == row[axis]]
    lines = []
    for one in json_rows(costs[costs["cost"].isin(["circuits", "rounds"])]):
        text = f"  {one['cost']:13}{one['mark']} {whole(one['mean'])}".replace("  >=", " >=")
        text += f" to the target, which {one['reached']} of {one['runs']} reached"
        if one["saved"] is not None:
            text += f"; saved {one['saved_mark']} {percent(one['saved'])}".replace("  ", " ")
        lines.append(text)
    return lines
