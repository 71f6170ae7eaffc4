"""Runs kept as JSON lines, and means with their spread: what the longer benchmarks share."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation import read_jsonl


def kept_runs(out: Path, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the runs in a file of JSON lines that have the wanted values; none without a file."""
    if not out.exists():
        return []
    return [
        run
        for run in read_jsonl(out)
        if all(run.get(key) == value for key, value in wanted.items())
    ]


def mean_spread(values: Sequence[float], digits: int = 4) -> str:
    """Return ``mean ± standard deviation``, of one value that alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
