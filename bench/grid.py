"""A federation in one process: the same ServerApp, strategy and ClientApp without Flower's runtime.

Used by benchmarks that need many runs, and by tests that drop messages or spoil them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Spoil = Callable[[Message, Message], Message | None]
"""Given an order and its reply, returns what arrives instead, or None if nothing does."""

FIRST_NODE = 1000
"""Node id of client 0."""

CRASHED = 2
"""Flower's error code of a ClientApp that raised."""


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
    """

    client_app: ClientApp
    run_config: Mapping[str, Any]
    clients: int
    node_configs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    spoil: Spoil = lambda order, reply: reply
    log: list[tuple[str, int]] = field(default_factory=list)
    contexts: dict[int, Context] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
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
        replies = []
        for number, message in enumerate(messages):
            node = message.metadata.dst_node_id
            self.log.append((message.metadata.message_type, node - FIRST_NODE))
            message.metadata.__dict__["_message_id"] = f"message-{len(self.log)}-{number}"
            try:
                reply = self.client_app(message, self.contexts[node])
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                reply = Message(Error(CRASHED, reason), reply_to=message)
            arrived = self.spoil(message, reply)
            if arrived is not None:
                replies.append(arrived)
        return replies

    @property
    def run(self) -> NoReturn:
        """Unknown to a federation without a SuperLink."""
        raise RuntimeError("no SuperLink, no run")

    def set_run(self, run: object) -> None:
        """Nothing to set."""

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Messages are made directly."""
        raise RuntimeError("make a flwr.app.Message")

    def push_messages(self, messages: Iterable[Message]) -> NoReturn:
        """Not offered: the strategy sends and receives in one call."""
        raise RuntimeError("use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> NoReturn:
        """Not offered: the strategy sends and receives in one call."""
        raise RuntimeError("use send_and_receive")
