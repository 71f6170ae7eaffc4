"""Whole runs with secure aggregation: sites that know each other, and sites that do not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client_app.app import app
from core import UserError
from core.messages import TRAIN, pack_instruction, pack_parameters, unpack_parameters
from core.secagg import Group, identity_of, known_peers
from core.secure_messages import KEYS, KeysIns
from core.settings.parsing import parse_settings
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.peers import settings_of
from tests.conftest import NO_TEACHER, Federate

SECURE = (*NO_TEACHER, "privacy.secure_aggregation=true")
PINS = "clients 0, 1, 2 know others by the keys that they see first in this run"


class Groups:
    """Keeps the groups that the server sends."""

    def __init__(self) -> None:
        self.seen: list[Group] = []

    def __call__(self, order: Message, reply: Message) -> Message:
        config: Any = order.content.config_records.get("config", {})
        if config.get("group"):
            self.seen.append(Group.from_bytes(config["group"]))
        return reply


class Between:
    """The site's app behind a server that changes what it sends."""

    def __init__(self, tamper: Callable[[Message], Message]) -> None:
        self.tamper = tamper

    def __call__(self, message: Message, context: Context) -> Message:
        return app(self.tamper(message), context)


def deployed(tmp_path: Path, nodes: int = 3) -> dict[int, dict[str, str]]:
    """Return each node's own settings in a deployment that was just made."""
    make_deployment(tmp_path / "fed", Options(nodes))
    return {k: settings_of(tmp_path / "fed" / f"node-{k}") for k in range(nodes)}


def failures(ran: Any) -> list[str]:
    return [text for event in ran.events("round") for text in event["failures"]]


def test_without_known_peers_the_run_says_who_could_be_in_the_middle(
    federate: Federate, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="flwr"):
        federate(*SECURE)
    assert sum(PINS in record.getMessage() for record in caplog.records) == 1


def test_sites_of_a_deployment_sign_with_their_nodes_keys_and_know_the_others(
    federate: Federate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, groups = deployed(tmp_path), Groups()
    with caplog.at_level(logging.INFO, logger="flwr"):
        ran = federate(*SECURE, node_configs=own, spoil=groups)
    assert not failures(ran)
    assert not [record for record in caplog.records if PINS in record.getMessage()]
    settings = [parse_settings({"privacy.secure_aggregation": True}, own[k]) for k in own]
    assert len(groups.seen) == 3 * 3  # the moments, and two rounds
    for group in groups.seen:
        there = {member.client: member.identity for member in group.members}
        assert there == known_peers(settings[0])
        assert there == {k: identity_of(settings[k], "any", k).public for k in own}


def test_a_site_refuses_a_member_that_it_knows_by_another_key(
    federate: Federate, tmp_path: Path
) -> None:
    """To node 1, whoever answers as client 2 is somebody in the middle."""
    own = deployed(tmp_path)
    peers = tmp_path / "fed" / "node-1" / "peers"
    (peers / "node-2.pub").write_bytes((peers / "node-0.pub").read_bytes())
    said = (
        "client 1: refused: client 2 has another identity than privacy.peers has: somebody may be"
    )
    with pytest.raises(UserError, match=said):  # of three nobody can be done without
        federate(*SECURE, "run.rounds=1", node_configs=own)


@pytest.mark.parametrize("change", ["model", "rate"])
def test_a_site_that_is_sent_another_model_than_the_others_refuses(
    federate: Federate, change: str
) -> None:
    """A model without gradients for all but one would let the server read that one's update."""

    def tamper(message: Message) -> Message:
        if message.metadata.message_type == TRAIN and message.metadata.dst_node_id == 1001:
            copy = RecordDict(dict(message.content))
            if change == "model":
                parameters = unpack_parameters(copy.array_records["arrays"])
                copy["arrays"] = pack_parameters({k: 0 * v for k, v in parameters.items()})
            else:
                copy["config"] = ConfigRecord({**copy.config_records["config"], "rate": 0.5})
            message.content = copy
        return message

    words = ("run.clients=4", "data.train_rows=160", "run.rounds=1")
    ran = federate(*SECURE, *words, client_app=Between(tamper))
    assert any("are to train another model, or otherwise" in text for text in failures(ran))
    assert ran.events("round")[0]["groups"][0]["summed"] == [0, 2, 3]  # enough without it


def test_a_run_under_another_name_does_not_make_a_site_forget_the_others(
    federate: Federate,
) -> None:
    seen: list[str] = []

    def between(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type == TRAIN:
            message.content = pack_instruction({}, KeysIns("another", 1, 1))
            message.metadata.message_type = KEYS
            again = app(message, context)
            seen.append(str(again.error.reason) if again.has_error() else "answered")
        return reply

    ran = federate(*SECURE, "run.clients=4", "run.rounds=2", client_app=between)
    assert [event["aggregated"] for event in ran.events("round")] == [[0, 1, 2, 3]] * 2
    assert seen
    assert all("keys are requested for run 'another' in the place of" in line for line in seen)
