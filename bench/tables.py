"""What benchmarks share: arguments, runs stored as JSON lines, means with their spread, tables."""

from __future__ import annotations

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import Settings, append_jsonl, parse_run, read_jsonl

ROOT = Path(__file__).resolve().parents[1]


def arguments(
    name: str,
    doc: str | None,
    needs: str,
    given: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
) -> argparse.Namespace:
    """Parse ``--data``, ``--seeds``, ``--store`` and a benchmark's own options; quieten Flower.

    Parameters
    ----------
    name, doc : str
        Of the benchmark.
    needs : str
        A folder that the data folder must hold.
    given : sequence of str
        The command line.
    options : mapping
        Keyword arguments of `argparse` by option.
    seeds : sequence of int
        The default seeds.
    """
    parser = argparse.ArgumentParser(prog=name, description=doc)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--store", help="the sites' store; a temporary folder by itself")
    for option, keywords in (options or {}).items():
        parser.add_argument(option, **keywords)
    parsed = parser.parse_args(given)
    if not (parsed.data / needs).is_dir():
        parser.error(f"--data {parsed.data} holds no {needs}/; name the folder that does")
    parsed.data = parsed.data.resolve()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return parsed


OUT: dict[str, dict[str, Any]] = {"--out": {"type": Path, "help": "gets a JSON line as a run ends"}}
"""An option that benchmarks have whose finished runs are kept."""


@contextmanager
def sites_store(folder: str | None) -> Iterator[str]:
    """Yield the folder that runs of one seed share their language models in."""
    with tempfile.TemporaryDirectory() as temporary:
        yield str(Path(folder).resolve()) if folder else temporary


def configured(config: str, given: Iterable[str]) -> tuple[Settings, dict[str, Any]]:
    """Return the settings of a shipped configuration with assignments, and what both set."""
    return parse_run([ROOT / "config" / config], list(given))


def commit() -> str:
    """Return the checkout's commit, ``-dirty`` if files differ, ``unknown`` without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def store(out: Path | None, run: Mapping[str, Any]) -> dict[str, Any]:
    """Append a finished run, with the commit, to a file of JSON lines; return what was written."""
    line = {**run, "commit": commit()}
    if out:
        append_jsonl(out, line)
    return line


def stored(out: Path | None, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
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


def once(
    out: Path | None, name: object, wanted: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the finished run that has the wanted values, or make, store and announce it."""
    found = stored(out, wanted)
    if found is None:
        began = time.monotonic()
        found = store(out, make())
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def mean_spread(values: Sequence[float], digits: int = 4) -> str:
    """Return ``mean ± standard deviation``, of one value that alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def row(cells: Iterable[str]) -> str:
    """Return a Markdown row."""
    return "| " + " | ".join(cells) + " |"


def head(cells: Sequence[str]) -> str:
    """Return the first two rows of a Markdown table."""
    return row(cells) + "\n" + "|---" * len(cells) + "|"
