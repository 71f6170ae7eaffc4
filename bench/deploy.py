"""Where the time of a deployed round goes: ``python -m bench.deploy [--nodes 3] [--rounds 12]``.

Brings up a real deployment over TLS on loopback, runs synthetic DNA on it, and ends it. A round's
overhead is its wall time less the slowest site's own work (training, evaluation, language model).
The first round, which fine-tunes, is left out. Beside it: what a fresh process needs until it can
train, import by import, as the least of three; and a round's parts, from when the nodes' logs say
where the message is (``--trace``: finer, by debug lines, which cost time of their own).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.deploy_watch import CLOSED, STEPS, TRACED, Watch
from bench.tables import ROOT
from core import read_jsonl

IMPORTS = (
    ("Python itself", "pass"),
    ("Flower's message types", "import flwr.app"),
    ("the ClientApp", "import client_app.app"),
    ("what training needs", "import client_app.app, client_app.work, torch, data, quantum"),
)
SETTINGS = (
    "data.train_rows=600",
    "data.test_rows=100",
    "data.server_rows=100",
    "llm.epochs=1",
    "train.steps=100",
    "train.max_steps=100",
    "agent.kind=all",
    "run.report=false",
    "evaluation.baselines=false",
)


def command(folder: Path, *words: str) -> None:
    """Run our command in a folder; what it says is shown only if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "llm_qfl.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words[:2])} failed: {done.stderr or done.stdout}")


def imported(code: str) -> tuple[float, float]:
    """Return wall seconds and peak memory (MB) of a fresh process that runs some code."""
    memory_line = (
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    seconds, memory = [], 0.0
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\n{memory_line}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        seconds.append(time.perf_counter() - began)
        memory = float(done.stdout.split()[-1])
    return min(seconds), memory


def rounds(nodes: int, count: int, *, trace: bool) -> tuple[list[tuple[float, float]], Watch]:
    """Run a deployment; return each round's wall seconds and its slowest site's work, and logs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command(folder, "deploy", "up", "fed", "--nodes", str(nodes), "--detach")
        try:
            given = [*SETTINGS, f"run.rounds={count}", f"run.folder={folder / 'run'}"]
            sets = [word for assignment in given for word in ("--set", assignment)]
            metrics = folder / "run" / "metrics.jsonl"
            logs = {f"node-{k}": folder / "fed" / "logs" / f"node-{k}.log" for k in range(nodes)}
            with Watch(logs, metrics, TRACED if trace else STEPS) as watch:
                command(folder, "run", "--on", "fed", *sets)
            events = list(read_jsonl(metrics))
        finally:
            command(folder, "deploy", "stop", "fed")
    found = []
    for event in events:
        if event["event"] == "round":
            mine = [e for e in events if e["event"] == "client" and e["round"] == event["round"]]
            found.append((event["seconds"], max(e["busy_seconds"] for e in mine)))
    return found, watch


def table(header: str, rows: Iterable[tuple[str, Sequence[float]]]) -> None:
    """Print medians, least and most."""
    print(f"\n| {header} | seconds, median (least, most) |\n|---|---|")
    for name, values in rows:
        if values:
            middle = statistics.median(values)
            print(f"| {name} | {middle:.2f} ({min(values):.2f}, {max(values):.2f}) |")


def main(words: Sequence[str]) -> int:
    """Print the parts of a deployed round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--trace", action="store_true", help="finer parts, by debug lines")
    chosen = parser.parse_args(words)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| a fresh process imports | seconds | MB |\n|---|---|---|")
    for name, code in IMPORTS:
        seconds, memory = imported(code)
        print(f"| {name} | {seconds:.2f} | {memory:.0f} |", flush=True)
    if chosen.trace:
        os.environ["FLWR_LOG_LEVEL"] = "DEBUG"
    measured, watch = rounds(chosen.nodes, chosen.rounds, trace=chosen.trace)
    later = measured[1:]
    overhead = [wall - work for wall, work in later]
    rows = [
        ("wall time", [wall for wall, _ in later]),
        ("the slowest site's work", [work for _, work in later]),
        ("**overhead**", overhead),
    ]
    header = f"deployed round, {chosen.nodes} nodes, {len(later)} rounds"
    table(header, rows)
    names = [words for _, words in watch.steps] + [CLOSED]
    parts = zip(*watch.parts(), strict=True)
    rows = [(name, list(values)) for name, values in zip(names, parts, strict=False)]
    rows.append(("a node's answer sent, until its next message", watch.sleeps()))
    table("its parts, of the node that answers last", rows)
    print(f"\nload {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
