"""A federation in one process: the same ServerApp, strategy and ClientApp without Flower's runtime.

Used by benchmarks that need many runs, and by tests that drop messages or spoil them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from core import Settings, flatten, read_jsonl
from core.flower_compat import CLIENT_RAISED, set_message_id, set_task_identity

Spoil = Callable[[Message, Message], Message | None]
"""Given an order and its reply, returns what arrives instead, or None if nothing does."""

FIRST_NODE = 1000
"""Node id of client 0."""


@dataclass
class InProcessGrid(Grid):
    """Calls the ClientApp for each message, in order of the clients.

    Attributes
    ----------
    client_app : ClientApp
        The app under test.
    run_config : dict
        Flat run config, as Flower hands it to every node.
    clients : int
        Number of nodes; node ids are 1000 + client.
    node_configs : dict
        Extra node config by client.
    spoil : callable
        May change or drop a reply.
    log : list
        Message types sent, with the client.
    pending : dict
        Replies that were not pulled yet, by the id of the order.
    """

    client_app: ClientApp
    run_config: Mapping[str, Any]
    clients: int
    node_configs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    spoil: Spoil = lambda order, reply: reply
    log: list[tuple[str, int]] = field(default_factory=list)
    contexts: dict[int, Context] = field(default_factory=dict)
    pending: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_task_identity()
        for client in range(self.clients):
            self.contexts[FIRST_NODE + client] = Context(
                run_id=1,
                node_id=FIRST_NODE + client,
                node_config={
                    "partition-id": client,
                    "num-partitions": self.clients,
                    **self.node_configs.get(client, {}),
                },
                state=RecordDict(),
                run_config=dict(self.run_config),
            )

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids."""
        return list(self.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Let each node answer; an exception becomes an error reply, as in Flower."""
        return [reply for message in messages if (reply := self._ask(message)) is not None]

    def _ask(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        self.log.append((message.metadata.message_type, node - FIRST_NODE))
        set_message_id(message, f"message-{len(self.log)}")
        try:
            reply = self.client_app(message, self.contexts[node])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            reply = Message(Error(CLIENT_RAISED, reason), reply_to=message)
        return self.spoil(message, reply)

    @property
    def run(self) -> NoReturn:
        """Unknown to a federation without a SuperLink."""
        raise RuntimeError("no SuperLink, no run")

    def set_run(self, run: object) -> None:
        """Nothing to set."""

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Messages are made directly."""
        raise RuntimeError("make a flwr.app.Message")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let each node answer at once, and keep the replies."""
        sent = []
        for message in messages:
            reply = self._ask(message)
            sent.append(str(message.metadata.message_id))
            if reply is not None:
                self.pending[sent[-1]] = reply
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies of these orders that are there, each once."""
        return [self.pending.pop(name) for name in message_ids if name in self.pending]


def run_with_events(
    settings: Settings, spoil: Spoil = lambda message, reply: reply
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a federation in this process; return its summary and events, and leave no files."""
    from client_app.app import app
    from client_app.site import forget
    from server_app.run import run
    from strategies.journal import RunJournal

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
