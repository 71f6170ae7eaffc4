"""The audit log of a run: who began it, what went to each site, and what each answered.

All messages of a run pass one grid, so this is where they are written down: as digests, in
``log.jsonl``, before the round goes on. The log holds no content of any message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import Message
from flwr.serverapp import Grid

from core.flower_compat import message_digest
from core.storage.chain import Chain
from strategies.deadlines import HasLateReplies
from strategies.state import Member
from strategies.wrapped_grid import WrappedGrid


@dataclass
class LoggedGrid(WrappedGrid):
    """Flower's connection to the nodes, with a line for what goes out and what comes back.

    Parameters
    ----------
    grid : Grid
        What sends the messages.
    chain : Chain
        The run's log.
    """

    chain: Chain

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return their replies; both are in the log when it returns."""
        sent = list(messages)
        self._write("sent", [(m.metadata.dst_node_id, m) for m in sent], sent)
        replies = list(self.grid.send_and_receive(sent, timeout=timeout))
        self._write("answered", [(r.metadata.src_node_id, r) for r in replies], sent)
        return replies

    def late(self) -> list[tuple[Message, Message]]:
        """Return messages whose replies came late, with the replies; they are logged too."""
        found = self.grid.late() if isinstance(self.grid, HasLateReplies) else []
        for message, reply in found:
            self._write("answered late", [(message.metadata.dst_node_id, reply)], [message])
        return found

    def busy(self) -> frozenset[int]:
        """Return the nodes that have not answered a message whose deadline has passed."""
        return self.grid.busy() if isinstance(self.grid, HasLateReplies) else frozenset()

    def _write(
        self, event: str, nodes: Sequence[tuple[int, Message]], sent: Sequence[Message]
    ) -> None:
        """Write one line for messages of one kind and round."""
        if not nodes:
            return
        about = sent[0].metadata
        errors = {str(n): one.error.code for n, one in nodes if one.has_error()}
        line = {"event": event, "kind": about.message_type, "round": about.group_id}
        digests = {str(node): message_digest(one) for node, one in nodes}
        self.chain.append({**line, "sites": digests, **({"errors": errors} if errors else {})})

    def push_messages(self, messages: Iterable[Message]) -> NoReturn:
        """Refuse: messages go out through `send_and_receive`, where they are logged."""
        raise RuntimeError("use send_and_receive: nothing goes out that is not logged")

    def pull_messages(self, message_ids: Iterable[str]) -> NoReturn:
        """Refuse: replies come through `send_and_receive`, where they are logged."""
        raise RuntimeError("use send_and_receive: nothing comes in that is not logged")


def submission(grid: Grid, run_id: str) -> dict[str, Any]:
    """Return the line of who submitted a run, and which code it runs.

    Outside Flower's runtime there is neither an account nor a bundle, and Flower's open edition
    has no accounts (``<id:none>``). ``code`` is there always: the digest of our packages' files as
    this process has them.
    """
    line = {"event": "submitted", "run": run_id, "account": "", "bundle": "", "code": code_digest()}
    with suppress(Exception):  # a grid without a SuperLink knows no run
        run = grid.run
        accounts = (str(run.account_name), str(run.flwr_aid))
        line["account"] = next((a for a in accounts if a and not a.startswith("<")), "")
        line["bundle"], line["submitted"] = str(run.fab_hash), str(run.pending_at)
    return line


@cache
def code_digest() -> str:
    """Return the sha256 over names and contents of our packages' Python files."""
    home, total = Path(__file__).parents[1], hashlib.sha256()
    packages = ("client_app", "core", "data", "llm", "quantum", "reporting", "server_app")
    for package in (*packages, "strategies"):
        for path in sorted((home / package).rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{content}  {path.relative_to(home).as_posix()}\n".encode())
    return total.hexdigest()


def site_names(members: Iterable[Member]) -> dict[str, Any]:
    """Return the line of which client is which node."""
    return {"event": "sites", "clients": {str(m.client): m.node_id for m in members}}
