"""Runs whose nodes are slow, leave, or come back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from bench.grid import InProcessGrid
from client_app.app import app
from client_app.site import forget
from core import UserError, flatten, parse_run, read_jsonl
from core.messages import TRAIN
from core.secure_messages import UNMASK
from llm_qfl.process import FIRST_NODE
from server_app.run import run
from strategies.deadlines import DeadlineGrid, Sent
from strategies.journal import RunJournal
from tests.conftest import NO_TEACHER, SMALL

WORDS = (*NO_TEACHER, "run.rounds=4", "run.wait_seconds=0.1")


@pytest.fixture(autouse=True)
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.deadlines.SLOWEST_POLL", 0.05)
    monkeypatch.setattr("strategies.deadlines.LATE_POLL", 0.05)


class Untimed(DeadlineGrid):
    """Waits for all but the replies that are held back, however slow the machine is."""

    grid: Nodes

    def _wait(self, batch: Sequence[Sent], timeout: float | None) -> None:
        def over() -> bool:
            return not any(sent.open and not self.grid.holds(sent.message) for sent in batch)

        while not self._changed.wait_for(over, 0.02):
            pass


class Nodes(InProcessGrid):
    """Nodes that hold back replies of some rounds until a later one, and that may be away."""

    held: dict[tuple[int, int], int]
    away: dict[int, set[int]]
    round = 0

    def __init__(self, settings: Any, held: Any = None, away: Any = None) -> None:
        super().__init__(app, flatten(settings), settings.run.clients)
        self.held, self.away = held or {}, away or {}
        self.messages: dict[str, tuple[int, int]] = {}
        self.come = threading.Event()

    def get_node_ids(self) -> Iterable[int]:
        """Return who is there; the server asks before each round."""
        gone = self.away.get(self.round + 1, set())
        return [FIRST_NODE + k for k in range(self.clients) if k not in gone]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = []
        for message in messages:
            sent += super().push_messages([message])
            if message.metadata.message_type == TRAIN:
                self.round = int(message.metadata.group_id)
                self.messages[sent[-1]] = self.round, message.metadata.dst_node_id - FIRST_NODE
        return sent

    def holds(self, message: Message) -> bool:
        """Whether this message has been carried out, and its reply does not come in its round."""
        return self.messages.get(str(message.metadata.message_id)) in self.held

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        (name,) = message_ids
        until = self.held.get(self.messages.get(name, (0, -1)), 0)
        if self.round < until:
            return []
        if until:
            self.come.set()
        elif self.round in self.held.values():
            self.come.wait()  # the round does not end before the late reply is there
        return super().pull_messages([name])


def go(folder: Path, *given: str, **nodes: Any) -> tuple[dict[str, Any], Nodes]:
    forget()
    settings, _ = parse_run([], [*SMALL, *WORDS, *given])
    journal = RunJournal(folder)
    journal.begin(settings)
    grid = Nodes(settings, **nodes)
    deadlines = Untimed(grid)
    try:
        return run(deadlines, settings, journal), grid
    finally:
        deadlines.close()


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_jsonl(folder / "metrics.jsonl") if event["event"] == kind]


def participants(folder: Path) -> list[list[int]]:
    return [event["participants"] for event in events(folder, "round")]


def test_with_everybody_in_time_nothing_changes(
    federate: Callable[..., Any], tmp_path: Path
) -> None:
    summary, _ = go(tmp_path / "run")
    plain = federate(*NO_TEACHER, "run.rounds=4")
    assert summary["test"] == plain.summary["test"]
    assert not events(tmp_path / "run", "late")
    assert not events(tmp_path / "run", "roll")


def test_a_slow_site_is_left_alone_and_its_cost_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # Client 2's reply to round 1 comes when round 2 is under way.
    summary, _ = go(folder, held={(1, 2): 2})
    assert summary["status"] == "completed"
    first, second, *_ = events(folder, "round")
    assert (first["aggregated"], second["participants"]) == ([0, 1], [0, 1])
    assert first["failures"] == ["client 2: no reply in time"]
    (late,) = events(folder, "late")
    assert (late["client"], late["round"], late["problem"]) == (2, 1, "")
    assert late["circuits"] > 0
    entries = json.loads((folder / "ledger.json").read_text())["entries"]
    (recorded,) = [e for e in entries if (e["round"], e["client"]) == (1, 2)]
    assert recorded["circuits"] == late["circuits"]
    changes = [(e["gone"], e["busy"], e["back"]) for e in events(folder, "roll")]
    assert changes == [([], [2], []), ([], [], [2])]
    assert participants(folder)[-1] == [0, 1, 2]


def test_what_comes_after_the_last_round_is_recorded_too(tmp_path: Path) -> None:
    """Nothing looks for late replies then but the end of the run itself."""
    folder = tmp_path / "run"
    summary, _ = go(folder, "run.rounds=2", held={(1, 2): 2})
    assert summary["rounds"] == 2
    (late,) = events(folder, "late")
    assert (late["client"], late["round"], late["problem"]) == (2, 1, "")
    recorded = json.loads((folder / "ledger.json").read_text())["entries"]
    assert [e["circuits"] for e in recorded if (e["round"], e["client"]) == (1, 2)] == [
        late["circuits"]
    ]
    assert summary["ledger"]["circuits"] >= late["circuits"] > 0


def test_where_too_few_are_left_the_slow_one_takes_part_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    given = ("run.min_replies=2", "run.clients=2", "run.rounds=2")
    with pytest.raises(UserError, match="round 1 has 1 valid replies of 2"):
        go(folder, *given, held={(1, 1): 9})


def test_a_late_reply_that_cannot_be_believed_is_not_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    class Liars(Nodes):
        def ask(self, message: Message) -> Message | None:
            reply = super().ask(message)
            if message.metadata.message_type == TRAIN and reply is not None:
                numbers = reply.content.metric_records["metrics"]
                if message.metadata.dst_node_id == FIRST_NODE + 2:
                    numbers["circuits"] = 10**12
            return reply

    forget()
    settings, _ = parse_run([], [*SMALL, *WORDS, "run.rounds=3"])
    journal = RunJournal(folder)
    journal.begin(settings)
    deadlines = Untimed(Liars(settings, held={(1, 2): 2}))
    run(deadlines, settings, journal)
    deadlines.close()
    (late,) = events(folder, "late")
    assert "1000000000000 circuits of" in late["problem"]
    assert late["circuits"] == 0


def test_a_node_that_leaves_sits_out_and_one_that_returns_takes_part(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    summary, grid = go(folder, away={2: {1}, 3: {1, 2}})
    assert summary["rounds"] == 4
    assert participants(folder) == [[0, 1, 2], [0, 2], [0], [0, 1, 2]]
    assert [e["gone"] for e in events(folder, "roll")] == [[1], [1, 2], []]
    requested = [client for kind, client in grid.log if kind == TRAIN]
    assert requested == [0, 1, 2, 0, 2, 0, 0, 1, 2]
    shown = [line["observation"]["clients"] for line in read_jsonl(folder / "agent.jsonl")]
    seen = [[view["client"] for view in views] for views in shown]
    assert seen == [[0, 1, 2], [0, 2], [0], [0, 1, 2]]


def test_a_run_whose_nodes_have_gone_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0 clients are connected \(gone: 0, 1, 2\); accepted"):
        go(tmp_path / "run", away={2: {0, 1, 2}})


def test_who_has_gone_does_not_evaluate(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    summary, _ = go(
        folder, "evaluation.mode=federated", "data.server_rows=0", "run.rounds=2", away={3: {1}}
    )
    assert summary["test"]["sites"] == 2
    assert summary["test"]["failures"] == [
        "client 1: it is not connected, or still busy with an earlier message"
    ]


def test_a_late_masked_update_is_counted_and_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    secure = ("privacy.secure_aggregation=true", "run.clients=4")
    summary, grid = go(folder, *secure, held={(1, 3): 2})
    assert summary["status"] == "completed"
    first, second, *_ = events(folder, "round")
    assert first["aggregated"] == second["aggregated"] == [0, 1, 2]
    assert first["groups"][0]["clients"] == [0, 1, 2, 3]
    (late,) = events(folder, "late")
    assert (late["client"], late["problem"]) == (3, "")
    assert late["circuits"] > 0
    requested = [round["round"] for round in events(folder, "round") if 3 in round["aggregated"]]
    assert len(requested) == 2
    assert grid.log.count((UNMASK, 3)) == 1 + len(requested)  # once for the sum of moments
