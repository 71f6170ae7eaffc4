"""A run that goes on from its last checkpoint: what it knew, and the sites as they are now."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from core import Cost, Settings, UserError, recorded_settings, refuse_changes
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
from core.received import read_report_alone
from core.settings.derived import agent_declares
from core.storage.checkpoints import (
    Checkpoint,
    check_state,
    count_releases,
    last_checkpoint,
    no_checkpoint,
    rewind,
    settle_repeated,
)
from core.storage.reading import Reader
from reporting.audit import whole_lines
from server_app.prepare import read_reports, wait_for_nodes
from strategies import LlmQfl, SharedAdapter
from strategies.context import PreparedFederation
from strategies.decisions import Agent, ClientView
from strategies.journal import ADAPTER, AGGREGATION, KEPT, MODEL, RECENT, load_arrays

COMPARED = ("train_rows", "val_rows", "test_rows", "class_rows", "classes", "kind", "encoder")
"""Fields of a `SiteReport` in which a site that goes on must be what it was."""


@dataclass(frozen=True)
class RunHistory:
    """What a run was when it was interrupted.

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
    def state(self) -> Mapping[str, Any]:
        """The stored state of strategy and run."""
        return self.checkpoint.state

    @property
    def run(self) -> str:
        """Flower's id of the run's first part; empty outside Flower."""
        return str(self.state["run"]).replace(UNSET, "")

    @property
    def arrays(self) -> Parameters:
        """The global parameters after that round."""
        return load_arrays(self.checkpoint.folder / MODEL)

    @property
    def best(self) -> Parameters | None:
        """The model to be kept so far; None before the first round."""
        path = self.checkpoint.folder / KEPT
        if path.exists():
            return load_arrays(path)
        return self.arrays if self.state["best_round"] else None

    @property
    def extra(self) -> dict[str, Parameters]:
        """What the aggregation kept after that round, and the newest rounds' parameters."""
        paths = [self.checkpoint.folder / name for name in (AGGREGATION, RECENT)]
        return {path.name: load_arrays(path) if path.exists() else {} for path in paths}


def load_history(folder: Path, settings: Settings) -> RunHistory:
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
    reader = Reader(folder)
    list(reader.lines("metrics.jsonl"))
    for damage in reader.damaged:  # only the report is made of it
        log(WARNING, "damaged: %s", damage)
    if found.number:
        whole_lines(folder / "agent.jsonl", found.state["records"]["agent.jsonl"])
    rewind(folder, found)
    return RunHistory(found)


def rejoin(grid: Grid, settings: Settings, history: RunHistory, folder: Path) -> PreparedFederation:
    """Check that every site is the one that the run began with; nothing is prepared again.

    Raises
    ------
    UserError
        If a site is not there, cannot take part, or holds other rows.
    """
    nodes, stored = wait_for_nodes(grid, settings), history.state
    adapter = None
    if facts := stored["adapter"]:
        kept = {name: facts[name] for name in ("kind", "rounds", "loss", "accuracy")}
        adapter = SharedAdapter(**kept, arrays=load_arrays(folder / ADAPTER))
    content = pack_instruction(adapter.arrays if adapter else {}, RejoinIns(history.run or UNSET))
    messages = [Message(content, node, REJOIN) for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=settings.run.round_timeout))
    answers = read_reports(replies, settings, lambda reply: (read_report_alone(reply), {}), "go on")
    members = tuple(member for member, _, _ in answers)
    for before, member in zip(stored["members"], members, strict=True):
        if why := changed(SiteReport(**before), member.about):
            raise UserError(
                f"client {member.client} is not the one that the run began with: {why}",
                "the same data on every node",
                "give it its data back, or start a new run",
            )
    down = payload_bytes(content)
    return PreparedFederation(
        members=members,
        costs={m.client: Cost(bytes_up=size, bytes_down=down) for m, _, size in answers},
        projection=base64.b64decode(stored["projection"]),
        class_weights=[float(weight) for weight in stored["class_weights"]],
        adapter=adapter,
    )


def changed(before: SiteReport, now: SiteReport) -> str:
    """Say in what a site is no longer the one that the run began with; empty: in nothing.

    Rows are compared by a digest that is keyed with a secret of the site's store. With another
    store, as after a move from simulation to deployment, only their numbers can be compared.
    """
    for name in COMPARED:
        one, other = getattr(before, name), getattr(now, name)
        if one != other:
            return f"{name} was {one!r} and is {other!r}"
    key, _, digest = before.rows_digest.partition("-")
    again, _, other = now.rows_digest.partition("-")
    return "its rows are other ones" if digest and key == again and digest != other else ""


def restore(strategy: LlmQfl, history: RunHistory, folder: Path) -> None:
    """Give strategy and agent back what they knew."""
    best, state = history.best, history.state
    releases = int(state["releases"])
    if strategy.settings.privacy.dp != "none":
        releases = count_releases(folder, releases)
    found = None if best is None else pack_parameters(best)
    strategy.resume(state, found, releases, history.extra)
    rejoining = [
        {"round": history.number, "client": client, **asdict(cost)}
        for client, cost in sorted(strategy.context.federation.costs.items())
    ]
    paid = settle_repeated(folder, history.number, rejoining)
    strategy.state.ledger.repeated[:] = read_entries(paid)
    if history.number:
        replay(strategy.agent, folder, strategy.settings)


def replay(agent: Agent, folder: Path, settings: Settings) -> None:
    """Show an agent its recorded observations, so that it learns again; no model is requested."""
    if not agent_declares(settings, "asks_model"):
        for line in whole_lines(folder / "agent.jsonl"):
            agent.decide(line.seen)
