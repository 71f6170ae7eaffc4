"""What secure aggregation costs a client and the server, beside open aggregation.

``python -m bench.secagg [--parameters 70 200] [--members 3 12 24 50 100]``: one round of the
protocol of `core.secagg` as a site and the server run it, without Flower and without training.
CPU seconds are those of this process, the mean over all clients; bytes are those of the messages'
contents. A third of the members is lost, once before they share and once after. The vector has a
number a parameter, and one for the weight. Open aggregation sends the parameters down and up in
single precision.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import numpy as np

from bench.tables import head
from bench.tables import row as table_row
from core.secagg import (
    Answer,
    Group,
    Held,
    KeyTable,
    Masked,
    RoundPrivate,
    answer,
    check_group,
    check_table,
    ciphertexts_for,
    make_group,
    make_table,
    mask,
    new_identity,
    read_answer,
    read_masked,
    threshold_of,
    unmask,
)
from core.secagg import graph as graphs

RUN, SHARE = "bench", 2 / 3
COLUMNS = (
    *("members", "graph", "neighbours", "parameters", "client, ms", "of it signatures"),
    *("server, ms", "sent, KB", "received, KB", "bytes to open"),
)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Measured:
    """One round: CPU seconds and bytes, summed over the clients."""

    seconds: dict[str, float] = field(default_factory=dict)
    sent: int = 0
    received: int = 0

    def timed(self, what: str, call: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Call something and add its CPU seconds."""
        begin = time.process_time()
        made = call(*args, **more)
        self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - begin
        return made


@dataclass
class Members:
    """A group's members with their keys."""

    count: int
    privates: dict[int, RoundPrivate] = field(default_factory=dict)
    tables: dict[int, KeyTable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for client in range(self.count):
            made, table = make_table(new_identity(), RUN, client, [1])
            self.privates[client], self.tables[client] = made[1], table

    def group(self) -> Group:
        """Return their group."""
        needed = threshold_of(self.count, SHARE)
        return make_group(RUN, 1, needed, self.tables, dict.fromkeys(self.tables, 1.0))


@contextmanager
def whole(complete: bool) -> Iterator[None]:
    """Make the graph complete whatever a group's size, or leave it as it is."""
    before = graphs.COMPLETE_UP_TO
    graphs.COMPLETE_UP_TO = 10**6 if complete else before
    graphs.degree.cache_clear()
    try:
        yield
    finally:
        graphs.COMPLETE_UP_TO = before
        graphs.degree.cache_clear()


def one_round(members: Members, numbers: int, before: int, after: int) -> Measured:
    """Run a round in which some members are lost before they share, and some before they answer."""
    rng, found, group = np.random.default_rng(0), Measured(), members.group()
    data, masked, held = group.to_bytes(), dict[int, Masked](), dict[int, Held]()
    for client in range(members.count):
        private, vector = members.privates[client], rng.normal(size=numbers)
        mine = found.timed("read", Group.from_bytes, data)
        found.timed("check", check_group, mine, private, client, run=RUN, round=1, peers=None)
        made, kept = found.timed("mask", mask, private, client, mine, vector)
        sent = found.timed("mask", made.to_bytes)
        found.sent += len(sent)
        found.received += len(data)
        if client >= before:
            masked[client] = found.timed("server", read_masked, sent, group, client, numbers)
            held[client] = kept
    _open(found, group, masked, held, set(list(masked)[:after]))
    return found


def _open(
    found: Measured,
    group: Group,
    masked: dict[int, Masked],
    held: dict[int, Held],
    silent: set[int],
) -> None:
    survivors, answers = sorted(masked), dict[int, Answer]()
    for client in survivors:
        shares = ciphertexts_for(client, group, masked)
        found.received += sum(map(len, shares.values())) + 4 * len(survivors)
        if client in silent:
            continue
        given = found.timed("answer", answer, held[client], survivors, shares)
        sent = found.timed("answer", given.to_bytes)
        found.sent += len(sent)
        answers[client] = found.timed("server", read_answer, sent, group, client, survivors)
    found.timed("server", unmask, group, masked, answers)


def cells(members: Members, parameters: int, complete: bool) -> tuple[str, ...]:
    """Measure both ways of losing a third; return the row of the dearer one for each figure."""
    count, third = members.count, members.count // 3
    third = min(third, count - threshold_of(count, SHARE))
    rounds = [one_round(members, parameters + 1, *lost) for lost in ((third, 0), (0, third))]
    client = max(sum(r.seconds[k] for k in ("read", "check", "mask", "answer")) for r in rounds)
    signatures = max(r.seconds["check"] / client for r in rounds)
    sent = max(r.sent for r in rounds)
    received = max(r.received for r in rounds) + 4 * parameters * count
    return (
        str(count),
        "complete" if complete else "neighbours",
        str(len(members.group().neighbours(0))),
        str(parameters),
        f"{1000 * client / count:.1f}",
        f"{100 * signatures:.0f} %",
        f"{1000 * max(r.seconds['server'] for r in rounds):.0f}",
        f"{sent / count / 1000:.1f}",
        f"{received / count / 1000:.1f}",
        f"{(sent + received) / count / (8 * parameters):.1f}",
    )


def keys_of_a_run(rounds: int) -> str:
    """Measure what is done once a run: a client's table of keys, made and checked."""
    found, numbers = Measured(), range(1, rounds + 1)
    _, table = found.timed("site", make_table, new_identity(), RUN, 0, numbers)
    found.timed("server", check_table, table, RUN, 0, numbers)
    site, server = (1000 * found.seconds[part] for part in ("site", "server"))
    size = len(table.to_bytes()) / 1000
    return f"Keys of {rounds} rounds: {site:.0f} ms a client, {server:.0f} server, {size:.1f} KB."


def main(words: Sequence[str]) -> int:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", nargs="+", type=int, default=[3, 12, 24, 50, 100])
    parser.add_argument("--parameters", nargs="+", type=int, default=[70, 200])
    given = parser.parse_args(words)
    print(keys_of_a_run(100), head(COLUMNS), sep="\n\n")
    for count in given.members:
        members = Members(count)
        for complete in (True, False):
            if complete or count > graphs.COMPLETE_UP_TO:
                with whole(complete):
                    for parameters in given.parameters:
                        print(table_row(cells(members, parameters, complete)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
