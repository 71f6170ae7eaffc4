"""A deployment's logs, watched while it runs: the parts of each round, from when lines appear."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STEPS = (
    ("Receiving: ", "until the node asks for messages: the server's own work, and Flower's sleep"),
    ("Start `flwr-clientapp` process", "until the message's client process runs"),
    ("Sending: ", "until the node sees its answer: bundle, app, work, and Flower's looks"),
    ("Sent successfully", "the answer goes to the SuperLink"),
)
"""What a node's log says in a round, in that order, and what has been done until then."""

TRACED = (
    *STEPS[:2],
    ("Start FAB installation", "until it has the message and the bundle"),
    ("Start `ClientApp` Loading", "until the bundle is unpacked"),
    ("Sending: ", "until the node sees its answer: app, work, and Flower's looks"),
    STEPS[-1],
)
"""The same of a log with Flower's debug lines, which cost time of their own."""

CLOSED = "the server sees it and closes the round"


@dataclass(frozen=True)
class Line:
    """A line that says where a message is.

    Attributes
    ----------
    when : float
        Monotonic seconds.
    node : str
        Whose log has it.
    step : int
        Which of the steps.
    """

    when: float
    node: str
    step: int


@dataclass
class Tail:
    """A file whose new lines are taken as they are added."""

    path: Path
    _read: int = 0
    _rest: bytes = b""

    def lines(self) -> list[str]:
        """Return the whole lines that have come since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return []
        self._read += len(added)
        *whole, self._rest = (self._rest + added).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


@dataclass
class Watch:
    """Watches the logs of nodes, and a run's metrics for the ends of rounds.

    Parameters
    ----------
    logs : mapping
        Each node's log by its name.
    metrics : Path
        ``metrics.jsonl`` of the run.
    steps : sequence of tuple
        `STEPS`, or `TRACED`.
    every : float
        Seconds between two looks: how exact the times are.
    """

    logs: Mapping[str, Path]
    metrics: Path
    steps: Sequence[tuple[str, str]] = STEPS
    every: float = 0.02
    ends: list[float] = field(default_factory=list)
    seen: list[Line] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        nodes = {name: Tail(path) for name, path in self.logs.items()}
        rounds = Tail(self.metrics)
        last = False
        while not last:
            last = self._stop.wait(self.every)  # what has come until then is read once more
            now = time.monotonic()
            for name, tail in nodes.items():
                self.seen += [Line(now, name, step) for step in self._of(tail.lines())]
            self.ends += [now for line in rounds.lines() if '"event": "round"' in line]

    def _of(self, lines: Iterable[str]) -> list[int]:
        """Return which steps lines of a log tell, in their order."""
        words = [text for text, _ in self.steps]
        return [step for line in lines for step, text in enumerate(words) if text in line]

    def parts(self) -> list[list[float]]:
        """Return the parts of each round but the first, as `parts_of`."""
        return parts_of(self.ends, self.seen, len(self.steps))

    def sleeps(self) -> list[float]:
        """Return the seconds between each answer that a node has sent and its next message."""
        found = []
        for node in self.logs:
            last = len(self.steps) - 1
            mine = [line for line in self.seen if line.node == node and line.step in (0, last)]
            found += [
                after.when - before.when
                for before, after in itertools.pairwise(mine)
                if before.step > after.step
            ]
        return found


def parts_of(ends: Sequence[float], seen: Sequence[Line], steps: int) -> list[list[float]]:
    """Return the seconds of each round's parts, which make up the round.

    They are those of the node that answers last, on which the round waits: one for each step, and
    the last from its answer to the round's end.

    Parameters
    ----------
    ends : sequence of float
        When rounds ended.
    seen : sequence of Line
        What the nodes' logs said; a round with no whole message is left out.
    steps : int
        How many steps a message has.
    """
    found = []
    for begun, ended in itertools.pairwise(ends):
        mine = [line for line in seen if begun < line.when <= ended]
        answered = [line for line in mine if line.step == steps - 1]
        if not answered:
            continue
        node = max(answered, key=lambda line: line.when).node
        whens = {line.step: line.when for line in mine if line.node == node}
        if len(whens) == steps:
            times = [begun, *(whens[step] for step in range(steps)), ended]
            found.append([after - before for before, after in itertools.pairwise(times)])
    return found
