"""Flower's connection to the nodes, as what wraps it passes it on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from flwr.app import Message
from flwr.serverapp import Grid


@dataclass
class WrappedGrid(Grid):
    """A grid that does what another does, but for what a subclass says.

    Parameters
    ----------
    grid : Grid
        The other.
    """

    grid: Grid

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch replies that are there."""
        return self.grid.pull_messages(message_ids)

    @property
    def run(self) -> Any:
        """Flower's run."""
        return self.grid.run

    def set_run(self, run: Any) -> None:
        """Set Flower's run."""
        self.grid.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Messages are made directly."""
        raise RuntimeError("make a flwr.app.Message")
