"""Seconds of the server's parts at many clients: ``python -m bench.scale [--profile]``.

The strategy, the journal, the checkpoints and the report are the real ones. Clients are derived: a
real ClientApp answers each kind of message once, and every client repeats that answer with numbers
of its own, so that a thousand clients cost the server what they would and the clients nothing.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import json
import logging
import pstats
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from core import Settings, flatten, parse_run
from core.messages import (
    ABOUT,
    ARRAYS,
    PREPARE,
    TRAIN,
    TrainReport,
    pack_report,
    read_parameters,
)
from core.received import read_report
from llm_qfl.process import FIRST_NODE, ProcessGrid

SIZES = ((100, 10, 10), (1_000, 100, 5), (10_000, 100, 3))
"""Clients, participants a round, and rounds."""


class DerivedGrid(ProcessGrid):
    """A grid whose clients repeat one real answer with numbers of their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.first: dict[str, Message] = {}
        self.seconds = 0.0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer each message, and note how long that took."""
        sent, began = list(messages), time.perf_counter()
        try:
            return [self._derived(message) for message in sent]
        finally:
            self.seconds += time.perf_counter() - began

    def _derived(self, message: Message) -> Message:
        kind, client = message.metadata.message_type, message.metadata.dst_node_id - FIRST_NODE
        if kind not in self.first:
            reply = self.ask(message)
            if reply is None or reply.has_error():
                raise RuntimeError(f"the first client does not answer {kind}: {reply}")
            self.first[kind] = reply
        content = self.first[kind].content
        if kind == PREPARE:
            about = ConfigRecord({**content.config_records[ABOUT]})
            about["client"], about["site"] = client, f"site {client:05d}"
            content = RecordDict({ABOUT: about, ARRAYS: content.array_records[ARRAYS]})
        if kind == TRAIN:
            content = self._trained(message, client)
        return Message(content, reply_to=message)

    def _trained(self, message: Message, client: int) -> RecordDict:
        """Return parameters near the global ones, and figures that differ by client and round."""
        instruction = message.content.config_records["config"]
        at, steps = (int(str(instruction[key])) for key in ("round", "steps"))
        rng = np.random.default_rng([client, at])
        first = self.first[TRAIN]
        report = read_report(first, TrainReport)
        share = steps / max(1, report.steps)
        figures = dataclasses.replace(
            report,
            round=at,
            steps=steps,
            loss=float(0.7 / at + 0.1 * rng.random()),
            accuracy=float(rng.uniform(0.5, 0.95)),
            circuits=int(report.circuits * min(1.0, share)),
            train_seconds=float(rng.uniform(0.1, 0.5)),
        )
        near = {
            name: (array + rng.normal(0, 0.01, array.shape)).astype(array.dtype)
            for name, array in read_parameters(message).items()
        }
        return pack_report(figures, near)


def many(clients: int, rounds: int, fraction: float, *more: str) -> Settings:
    """Return settings of a federation of many tiny sites."""
    given = (
        f"run.clients={clients}",
        f"run.rounds={rounds}",
        f"data.train_rows={12 * clients}",
        "data.test_rows=60",
        "data.server_rows=40",
        "train.steps=2",
        "run.report=false",
        "quantum.block=paper",
        "distill.weight=0",
        "agent.kind=random",
        f"agent.fraction={fraction}",
        *more,
    )
    return parse_run([], list(given))[0]


def run_many(settings: Settings, folder: Path, watch: Any = lambda event: "") -> DerivedGrid:
    """Run a federation of derived clients into a folder; return its grid."""
    from client_app.app import app
    from client_app.site import forget
    from server_app.app import drive

    forget()
    grid = DerivedGrid(app, flatten(settings), settings.run.clients)
    drive(grid, settings, folder, "1", watch)
    return grid


def measure(size: Sequence[int], *more: str) -> dict[str, float]:
    """Return seconds of a run's parts, and bytes of its files."""
    (clients, participants, rounds), found = size, dict[str, float]()
    with tempfile.TemporaryDirectory() as home:
        folder, began = Path(home) / "run", time.perf_counter()
        times = [began]

        def watch(event: Any) -> str:
            times.append(time.perf_counter())
            return ""

        grid = run_many(many(clients, rounds, participants / clients, *more), folder, watch)
        took = [after - before for before, after in pairwise(times)]
        found["prepare"], found["round"] = took[0], float(np.median(took[1:]))
        found["last round"], found["clients"] = took[-1], grid.seconds
        found["run"] = time.perf_counter() - began
        found |= _reading(folder)
        found["MB"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    return found


def _reading(folder: Path) -> dict[str, float]:
    """Return seconds of what reads a run folder, and the page's MB."""
    from reporting import write_report
    from reporting.audit import audit
    from reporting.compared_run import read_run

    found: dict[str, float] = {}
    for name, job in (("report", write_report), ("compare", read_run), ("audit", audit)):
        began = time.perf_counter()
        job(folder)
        found[name] = time.perf_counter() - began
    found["page MB"] = (folder / "report.html").stat().st_size / 1e6
    return found


def main() -> None:
    """Print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="", help="clients:participants:rounds, comma-separated")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("more", nargs="*", help="settings, key=value")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    sizes = [tuple(map(int, one.split(":"))) for one in given.sizes.split(",") if one]
    for size in sizes or SIZES:
        profile = cProfile.Profile()
        with profile if given.profile else nullcontext():
            found = measure(size, *given.more)
        print(size, json.dumps({k: round(v, 3) for k, v in found.items()}), flush=True)
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(70)


if __name__ == "__main__":
    main()
