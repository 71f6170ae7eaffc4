"""A whole federation in this process: seconds and memory by the number of clients.

``python -m bench.federation [--clients 1000] [--per-round 100] [--rounds 30] [--teacher tfidf]``:
synthetic DNA, 40 rows a client (32 to train, 8 to validate), 20 Adam steps, 4 qubits, su4; the
participants of a round are drawn at random, and evaluation is the server's. One thread. Peak
memory is the process's, at round 10 and at the end of the last.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

ROWS = 40
"""Rows of a client: the last fifth are its validation rows."""


def peak_megabytes() -> float:
    """Return the most memory that this process has held, MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def settings(clients: int, per_round: int, rounds: int, teacher: str, folder: str) -> Any:
    """Return the run's configuration."""
    untaught = {"distill": {"weight": 0.0}} if teacher == "none" else {}
    return {
        "run": {"name": "federation", "clients": clients, "rounds": rounds, "output": folder},
        "data": {"source": "dna-demo", "train_rows": ROWS * clients},
        "agent": {"kind": "random", "fraction": per_round / clients},
        "llm": {"model": teacher},
        **untaught,
    }


class Watch:
    """Notes when the rounds began, and the peak memory after each."""

    def __init__(self) -> None:
        self.prepared = 0.0
        self.peaks: dict[int, float] = {}

    def on_prepared(self, prepared: Mapping[str, Any]) -> None:
        """Take the time."""
        self.prepared = time.monotonic()

    def on_round(self, figures: Mapping[str, Any]) -> None:
        """Take the memory."""
        self.peaks[int(figures["round"])] = peak_megabytes()


def measure(clients: int, per_round: int, rounds: int, teacher: str) -> list[str]:
    """Run a federation; return lines of what it took."""
    import llm_qfl

    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLM_QFL_HOME"] = folder  # nothing is reused from an earlier run
        config = settings(clients, per_round, rounds, teacher, folder)
        began = time.monotonic()
        result = llm_qfl.run(config, callbacks=watch, quiet=True)
        whole = time.monotonic() - began
        report = (result.folder / "report.html").stat().st_size / 2**20
    seconds = result.summary["seconds"]
    peaks = watch.peaks
    early = peaks.get(10, peaks[min(peaks)])
    return [
        f"{clients:,} clients, {per_round} a round, {rounds} rounds, teacher {teacher}",
        f"seconds: {whole:.1f} in all, of these {watch.prepared - began:.1f} before round 1",
        ", ".join(f"{name} {seconds[name]:.1f}" for name in sorted(seconds)),
        f"peak memory, MB: {early:.0f} at round 10, {peaks[max(peaks)]:.0f} at round {max(peaks)}, "
        f"{peak_megabytes():.0f} at the end; report {report:.2f} MB",
        f"validation loss {result.rounds['loss'].iloc[-1]:.6f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--teacher", default="tfidf", help="llm.model; none: no distillation")
    given = parser.parse_args(arguments)
    print("\n".join(measure(given.clients, given.per_round, given.rounds, given.teacher)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
