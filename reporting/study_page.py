"""What a study's folder holds beside its runs: tables, and ``study.html``."""

from __future__ import annotations

from pathlib import Path

from core import write_json, write_text
from reporting.compared_run import json_rows
from reporting.study_figures import costs, summarise
from reporting.study_record import read_study_record


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
    for name, frame in (("table", record.table), ("summary", summary)):
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    write_json(folder / "table.json", json_rows(record.table))
    write_json(folder / "summary.json", {"cells": json_rows(summary), "costs": json_rows(paid)})
    return folder / "study.html"
