"""What the longer benchmarks share: arguments, runs kept as JSON lines, means with their spread."""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import append_jsonl, read_jsonl

ROOT = Path(__file__).resolve().parents[1]


def arguments(name: str, doc: str | None, needs: str, given: Sequence[str]) -> argparse.Namespace:
    """Parse ``--data``, ``--only``, ``--seeds``, ``--store`` and ``--out``.

    Parameters
    ----------
    name, doc : str
        Of the benchmark.
    needs : str
        A folder that the data folder must hold.
    given : sequence of str
        The command line.
    """
    parser = argparse.ArgumentParser(prog=name, description=doc)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", choices=("tweets", "dna"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--store", help="the sites' memory; a temporary folder by itself")
    parser.add_argument("--out", type=Path, help="gets a JSON line as a run ends")
    parsed = parser.parse_args(given)
    if not (parsed.data / needs).is_dir():
        parser.error(f"--data {parsed.data} holds no {needs}/; name the folder that does")
    parsed.data = parsed.data.resolve()
    return parsed


def commit() -> str:
    """Return the checkout's commit, ``-dirty`` if files differ, ``unknown`` without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def keep(out: Path | None, run: Mapping[str, Any]) -> dict[str, Any]:
    """Append a finished run, with the commit, to a file of JSON lines; return what was written."""
    line = {**run, "commit": commit()}
    if out:
        append_jsonl(out, line)
    return line


def kept(out: Path | None, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the last run in a file that has the wanted values; None if there is none.

    ``wanted`` should hold a run's whole settings under ``given``, so that runs of other days'
    settings are made again.
    """
    lines: Iterable[dict[str, Any]] = read_jsonl(out) if out else ()
    found = None
    for line in lines:
        if all(line.get(key) == value for key, value in wanted.items()):
            found = line
    return found


def mean_spread(values: Sequence[float], digits: int = 4) -> str:
    """Return ``mean ± standard deviation``, of one value that alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def mean_error(values: Sequence[float]) -> str:
    """Return mean and standard error of differences, signed; ``-`` for none."""
    if len(values) < 2:
        return f"{values[0]:+.4f}" if values else "-"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.4f} ± {error:.4f}"


def row(cells: Iterable[str]) -> str:
    """Return a Markdown row."""
    return "| " + " | ".join(cells) + " |"


def head(cells: Sequence[str]) -> str:
    """Return the first two rows of a Markdown table."""
    return row(cells) + "\n" + "|---" * len(cells) + "|"
