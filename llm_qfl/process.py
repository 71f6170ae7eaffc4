"""A federation in this process: the same apps, strategy and messages without Flower's runtime."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from core import Settings, UserError, flatten
from core.flower_compat import CLIENT_RAISED, flower_logger, set_message_id, set_task_identity

if TYPE_CHECKING:
    from strategies.context import Watch

FIRST_NODE = 1000
"""Node id of client 0."""

_busy = threading.Lock()
"""Held while a run goes on: caches and thread counts belong to the whole process."""


@dataclass
class ProcessGrid(Grid):
    """Calls the ClientApp for each message, in the order of the messages.

    Participants of a round that run on the exact simulator train together, in one launch.

    Attributes
    ----------
    client_app : ClientApp
        What answers.
    run_config : dict
        Flat run config, as Flower hands it to every node.
    clients : int
        Number of nodes; node ids are 1000 + client.
    node_configs : dict
        Extra node config by client.
    run_id : int
        Flower's id of the run.
    contexts : dict
        Flower's context of each node, by its id.
    """

    client_app: ClientApp
    run_config: Mapping[str, Any]
    clients: int
    node_configs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    run_id: int = 1
    contexts: dict[int, Context] = field(default_factory=dict)
    _answered: dict[str, Message] = field(default_factory=dict)
    _sent: int = 0

    def __post_init__(self) -> None:
        from client_app.site import hold_sites

        set_task_identity()
        hold_sites(self.clients)
        for client in range(self.clients):
            self.contexts[FIRST_NODE + client] = Context(
                run_id=self.run_id,
                node_id=FIRST_NODE + client,
                node_config={
                    "partition-id": client,
                    "num-partitions": self.clients,
                    **self.node_configs.get(client, {}),
                },
                state=RecordDict(),
                run_config=dict(self.run_config),
            )

    def ask(self, message: Message) -> Message | None:
        """Let a node answer; an exception becomes an error reply, as in Flower."""
        self._sent += 1
        set_message_id(message, f"message-{self._sent}")
        try:
            return self.client_app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(CLIENT_RAISED, reason), reply_to=message)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids."""
        return list(self.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Let each node answer in turn."""
        return [reply for _, reply in self._ask_all(messages) if reply is not None]

    def _ask_all(self, messages: Iterable[Message]) -> list[tuple[Message, Message | None]]:
        """Let each node answer in turn; those that our own app trains do so together before."""
        from client_app.app import app
        from client_app.together import trained_together

        sent = list(messages)
        with trained_together(sent if self.client_app is app else [], self.contexts):
            return [(message, self.ask(message)) for message in sent]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let each node answer at once, and keep the replies."""
        names = []
        for message, reply in self._ask_all(messages):
            names.append(str(message.metadata.message_id))
            if reply is not None:
                self._answered[names[-1]] = reply
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that are there, each once."""
        return [self._answered.pop(name) for name in message_ids if name in self._answered]

    @property
    def run(self) -> NoReturn:
        """Unknown to a federation without a SuperLink."""
        raise RuntimeError("no SuperLink, no run")

    def set_run(self, run: object) -> None:
        """Nothing to set."""

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Messages are made directly."""
        raise RuntimeError("make a flwr.app.Message")


def run_here(settings: Settings, folder: Path, watch: Watch) -> None:
    """Run a federation in this process, from its first message to its report.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    folder : Path
        Its results folder.
    watch : callable
        Sees the run's events, and may end it.

    Raises
    ------
    UserError
        As `server_app.app.drive`; or if another run goes on in this process.
    """
    from client_app.app import app
    from server_app.app import drive

    with held_process(settings, folder):
        run_id = secrets.randbits(62)
        config = flatten(settings)
        grid = ProcessGrid(app, config, settings.run.clients, run_id=run_id)
        drive(grid, settings, folder, str(run_id), watch)


@contextmanager
def held_process(settings: Settings, folder: Path) -> Iterator[None]:
    """Hold this process for one run: its threads, its log, and nothing of an earlier run.

    Parameters
    ----------
    settings : Settings
        The run's settings.
    folder : Path
        Its results folder, for the log.

    Raises
    ------
    UserError
        If another run goes on in this process.
    """
    from client_app.site import forget

    if not _busy.acquire(blocking=False):
        given = "a run while another one goes on in this process"
        raise UserError(given, "one after the other", "wait for its end, or use another process")
    try:
        with _threads(settings.quantum.threads), _log_file(folder / "logs" / "run.log"):
            forget()
            yield
    finally:
        forget()
        _busy.release()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give numerical libraries as many threads as the launcher gives them: the same digits."""
    import torch
    from threadpoolctl import threadpool_limits

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before, torch_before = {name: os.environ.get(name) for name in names}, torch.get_num_threads()
    os.environ |= dict.fromkeys(names, str(count))
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(torch_before)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Write Flower's log and ours to a file; only warnings go where they went before."""
    logger = flower_logger()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    before = {handler: handler.level for handler in logger.handlers}
    level = logger.level
    for handler in before:
        handler.setLevel(max(handler.level, logging.WARNING))
    logger.addHandler(file)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(file)
        file.close()
        for handler, was in before.items():
            handler.setLevel(was)
