"""A run that goes on from its last checkpoint: what it knew, and the sites as they are now."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import (
    Checkpoint,
    Cost,
    Settings,
    UserError,
    check_state,
    count_releases,
    last_checkpoint,
    no_checkpoint,
    recorded_settings,
    refuse_changes,
    rewind,
    settle_repeated,
)
from core.formatting import printable
from core.ledger import read_entries
from core.messages import (
    REJOIN,
    UNSET,
    Parameters,
    RejoinIns,
    SiteReport,
    pack_instruction,
    pack_parameters,
    payload_bytes,
)
from core.received import (
    ReplyError,
    checked_reply,
    read_rejoin,
)
from core.settings.agent import LANGUAGE_MODELS
from core.storage.reading import Reader
from reporting.audit import whole_lines
from server_app.journal import ADAPTER, KEPT, MODEL, load_arrays
from server_app.prepare import Prepared, check_agreement, check_site, malformed, wait_for_nodes
from strategies import LlmQfl, Member, SharedAdapter, last_line
from strategies.agents import Agent, ClientView
from strategies.snapshot import changed, report_of

if TYPE_CHECKING:
    from data import Projection


@dataclass(frozen=True)
class Past:
    """What a run was when it was broken off.

    Attributes
    ----------
    checkpoint : Checkpoint
        The last whole one.
    """

    checkpoint: Checkpoint

    @property
    def number(self) -> int:
        """The last finished round; 0: none."""
        return self.checkpoint.number

    @property
    def told(self) -> Mapping[str, Any]:
        """The state of strategy and run."""
        return self.checkpoint.state

    @property
    def run(self) -> str:
        """Flower's id of the run's first part; empty outside Flower."""
        return str(self.told["run"]).replace(UNSET, "")

    @property
    def arrays(self) -> Parameters:
        """The global parameters after that round."""
        return load_arrays(self.checkpoint.folder / MODEL)

    @property
    def kept(self) -> Parameters | None:
        """The model to be kept so far; None before the first round."""
        path = self.checkpoint.folder / KEPT
        if path.exists():
            return load_arrays(path)
        return self.arrays if self.told["best_round"] else None


def take_up(folder: Path, settings: Settings) -> Past:
    """Read a run's last checkpoint, and cut its record back to it.

    Raises
    ------
    UserError
        If there is none, or the settings would make another run of it.
    """
    found = last_checkpoint(folder)
    if found is None:
        raise UserError(no_checkpoint(folder))
    refuse_changes(recorded_settings(folder), settings, found.number)
    if found.damaged:
        log(WARNING, "damaged, and passed over: %s", ", ".join(found.damaged))
    log(INFO, "the run goes on after round %d", found.number)
    check_state(found, ("members", list[SiteReport]), ("views", list[ClientView]))
    _check_records(folder, found)
    rewind(folder, found)
    return Past(found)


def _check_records(folder: Path, found: Checkpoint) -> None:
    """Refuse a record that the run cannot go on from, and name what is damaged.

    Raises
    ------
    UserError
        With the file, and the line or place.
    """
    reader = Reader(folder)
    list(reader.lines("metrics.jsonl"))
    for damage in reader.damaged:  # only the report is made of it
        log(WARNING, "damaged: %s", damage)
    if found.number:
        whole_lines(folder / "agent.jsonl", found.state["records"]["agent.jsonl"])


def rejoin(grid: Grid, settings: Settings, past: Past, folder: Path) -> Prepared:
    """Hear of every site that it is the one that the run began with; nothing is prepared anew.

    Raises
    ------
    UserError
        If a site is not there, cannot take part, or holds other rows.
    """
    nodes = wait_for_nodes(grid, settings)
    adapter = _adapter(past, folder)
    content = pack_instruction(adapter.arrays if adapter else {}, RejoinIns(past.run or UNSET))
    messages = [Message(content, node, REJOIN) for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=settings.run.round_timeout))
    members = _read(replies, settings, [report_of(one) for one in past.told["members"]])
    sizes = {reply.metadata.src_node_id: payload_bytes(reply.content) for reply in replies}
    down = payload_bytes(content)
    return Prepared(
        members=members,
        costs={m.client: Cost(bytes_up=sizes[m.node_id], bytes_down=down) for m in members},
        projection=projection_of(past),
        class_weights=[float(weight) for weight in past.told["class_weights"]],
        adapter=adapter,
    )


def projection_of(past: Past) -> Projection:
    """Return the projection that the run was prepared with."""
    from data import Projection

    return Projection.from_bytes(base64.b64decode(past.told["projection"]))


def _adapter(past: Past, folder: Path) -> SharedAdapter | None:
    facts = past.told["adapter"]
    if facts is None:
        return None
    return SharedAdapter(
        arrays=load_arrays(folder / ADAPTER),
        kind=facts["kind"],
        rounds=facts["rounds"],
        loss=facts["loss"],
        accuracy=facts["accuracy"],
    )


def _read(
    replies: list[Message], settings: Settings, before: list[SiteReport]
) -> tuple[Member, ...]:
    """Unpack the answers, ordered by client; every site must be the one it was."""
    nodes = settings.run.clients
    reasons = [r.error.reason or "no reason given" for r in replies if r.has_error()]
    problems = [printable(last_line(reason)) for reason in reasons]
    if problems or len(replies) < nodes:
        told = " | ".join(dict.fromkeys(problems)) or "no reply in time"
        raise UserError(f"{len(replies) - len(problems)} of {nodes} clients can go on: {told}")
    members = []
    for reply in replies:
        try:
            with checked_reply():
                about = read_rejoin(reply)
                check_site(about, settings)
        except ReplyError as error:
            raise UserError(malformed(reply, error)) from None
        members.append(Member(reply.metadata.src_node_id, about))
    members.sort(key=lambda member: member.client)
    check_agreement([member.about for member in members])
    for one, member in zip(before, members, strict=True):
        if why := changed(one, member.about):
            raise UserError(
                f"client {member.client} is not the one that the run began with: {why}",
                "the same data on every node",
                "give it its data back, or start a new run",
            )
    return tuple(members)


def carry_on(strategy: LlmQfl, past: Past, prepared: Prepared, folder: Path) -> None:
    """Give strategy and agent back what they knew."""
    kept = past.kept
    releases = int(past.told["releases"])
    if strategy.settings.privacy.dp != "none":
        releases = count_releases(folder, releases)
    strategy.resume(past.told, None if kept is None else pack_parameters(kept), releases)
    going_on = [
        {"round": past.number, "client": client, **asdict(cost)}
        for client, cost in sorted(prepared.costs.items())
    ]
    paid = settle_repeated(folder, past.number, going_on)
    strategy.state.ledger.repeated = read_entries(paid)
    if past.number:
        replay(strategy.agent, folder, strategy.settings)


def replay(agent: Agent, folder: Path, settings: Settings) -> None:
    """Show an agent what it has seen, so that it has learnt what it had; no model is asked."""
    if settings.agent.kind not in LANGUAGE_MODELS:
        for line in whole_lines(folder / "agent.jsonl"):
            agent.decide(line.seen)
