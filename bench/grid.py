"""A federation in this process: for benchmarks of many runs, and tests that spoil messages."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Message

from core import Settings, flatten, read_jsonl
from llm_qfl.process import FIRST_NODE, ProcessGrid
from strategies.journal import RunJournal

Spoil = Callable[[Message, Message], Message | None]
"""Given an order and its reply, returns what arrives instead, or None if nothing does."""


@dataclass
class InProcessGrid(ProcessGrid):
    """A grid that notes what was sent, and may change or drop a reply.

    Attributes
    ----------
    spoil : callable
        May change or drop a reply.
    log : list
        Message types sent, with the client.
    """

    spoil: Spoil = lambda order, reply: reply
    log: list[tuple[str, int]] = field(default_factory=list)

    def ask(self, message: Message) -> Message | None:
        """Let a node answer, and spoil what it says."""
        metadata = message.metadata
        self.log.append((metadata.message_type, metadata.dst_node_id - FIRST_NODE))
        reply = super().ask(message)
        return None if reply is None else self.spoil(message, reply)


class NoCheckpoints(RunJournal):
    """A run's folder without checkpoints and drawing, since nobody resumes a benchmark."""

    def released(self, count: int) -> None:
        """Do nothing."""

    def underway(self, server_round: int, costs: Any) -> None:
        """Keep nothing."""

    def checkpoint(self, server_round: int, arrays: Any, best: Any, state: Any, _: Any) -> None:
        """Keep nothing."""

    def circuit(self, svg: str) -> None:
        """Keep no drawing."""


def run_with_events(
    settings: Settings, spoil: Spoil = lambda message, reply: reply
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a federation in this process; return its summary and events, and leave no files."""
    from client_app.app import app
    from client_app.site import forget
    from server_app.run import run

    forget()
    grid = InProcessGrid(app, flatten(settings), settings.run.clients, spoil=spoil)
    with tempfile.TemporaryDirectory() as folder:
        journal = RunJournal(Path(folder))
        journal.begin(settings)
        summary = run(grid, settings, journal)
        return summary, list(read_jsonl(journal.folder / "metrics.jsonl"))


def run_once(settings: Settings) -> dict[str, Any]:
    """Run a federation in this process; return its summary, with every round's validation loss."""
    summary, events = run_with_events(settings)
    losses = [event["loss"] for event in events if event["event"] == "round"]
    return {**summary, "validation_losses": losses}
