"""Runs that a language model directed, replayed from its recorded answers without a request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reporting.audit import audit
from tests.conftest import Federate
from tests.llm.chat.server import (
    ENDPOINT,
    FINE,
    AgentServer,
    answer,
    closes,
    hangs,
    replies,
    sends,
)
from tests.reporting.test_audit import change


@pytest.fixture
def server(server: AgentServer, monkeypatch: pytest.MonkeyPatch) -> AgentServer:
    monkeypatch.setenv("LLM_QFL_AGENT_URL", server.url)
    return server


CUT = replies(FINE[:30], finish="length")
ROUNDS: list[list[Any]] = [
    [replies(answer({"0": 2, "7": 3}, mood="fine"))],
    [replies(answer({"0": 50, "1": "2", "2": 1.4}))],
    [replies(answer({"0": 0, "1": 0, "2": 0})), replies(FINE)],
    [replies(answer({"1": 3}, stop=True))],
    [CUT, CUT, CUT],
    [hangs],
    [CUT, sends(b"<html>", kind="text/html")],
    [closes, replies(FINE)],
    [replies("x" * 30_000), replies("<think>no</think>" + FINE)],
    [replies(f"<think>{'x' * 25_000}</think>" + FINE)],
    [replies(answer({"0": 0, "1": 0, "2": 0}, stop=True))],
]
"""Answers that are repaired, refused, late, cut off, too long, and none at all."""


@pytest.fixture
def directed(federate: Federate, server: AgentServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a run that an endpoint directed, and that the endpoint is gone since."""
    monkeypatch.setattr("strategies.decisions.llm_agent.singles_out", lambda *_: False)
    server.script = [behaviour for script in ROUNDS for behaviour in script]
    count = len(ROUNDS)
    ran = federate(*ENDPOINT, f"run.rounds={count}", f"stop.min_rounds={count}", "agent.timeout=4")
    assert server.script == []
    monkeypatch.delenv("LLM_QFL_AGENT_URL")
    return ran, server


def test_answers_are_parsed_again_without_a_request(directed: Any) -> None:
    ran, server = directed
    asked, lines = len(server.requests), ran.decisions()
    name, same, _ = audit(ran.folder)
    assert name == "endpoint (tiny)"
    assert [one.differs for one in same] == [()] * len(ROUNDS)
    assert [line["round"] for line in lines if line["decided_by"] != name] == [5, 6, 7, 11]
    assert "since endpoint (tiny) would stop" in lines[10]["reason"]

    def changed(number: int, place: int, **values: Any) -> list[Any]:
        attempts = lines[number - 1]["attempts"]
        return [one | values if k == place else one for k, one in enumerate(attempts)]

    change(ran.folder, 1, attempts=changed(1, 0, answer=FINE))
    change(ran.folder, 2, attempts=changed(2, 0, prompt="choose everybody"))
    change(ran.folder, 3, attempts=lines[2]["attempts"][1:])
    absent = "no steps said of clients 0, 2: they sit out"
    assert lines[3]["attempts"][0]["notes"] == [absent]
    change(ran.folder, 4, attempts=changed(4, 0, notes=["mended"]))
    change(ran.folder, 5, decided_by="endpoint (tiny)")
    found = {one.round: one.differs for one in audit(ran.folder)[1]}
    assert found[1][0] == "participants [0] recorded, [0, 2] replayed"
    assert found[2] == ("question 1: the prompt is not the one that the observation gives",)
    assert found[3] == ("question 1: the prompt is not the one that the observation gives",)
    assert found[4] == (f'question 1: notes ["mended"] recorded, ["{absent}"] replayed',)
    assert found[5] == ('decided_by "endpoint (tiny)" recorded, "rule (when-it-pays)" replayed',)
    assert not any(found[number] for number in range(6, len(ROUNDS) + 1))
    assert len(server.requests) == asked


@pytest.mark.parametrize("decoding", ["schema", "choices"])
def test_a_model_in_this_process_is_not_loaded_again(
    federate: Federate, causal_folder: Callable[..., Path], tmp_path: Path, decoding: str
) -> None:
    gone = tmp_path / "model"
    gone.symlink_to(causal_folder(0, ""))
    ran = federate("agent.kind=llm", f"agent.model={gone}", f"agent.decoding={decoding}")
    gone.unlink()
    name, found, _ = audit(ran.folder)
    assert name == ran.events("prepared")[0]["agent"]
    assert [one.differs for one in found] == [(), ()]
    lines = ran.decisions()
    if decoding == "choices":
        assert [len(line["attempts"]) for line in lines] == [2, 2]
        assert any(line["attempts"][1]["uninformed"] for line in lines)  # random weights


def test_control_questions_are_replayed(
    federate: Federate, server: AgentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [replies(FINE)] * 5
    ran = federate(*ENDPOINT, "run.rounds=3", "stop.min_rounds=3", "agent.timeout=4")
    monkeypatch.delenv("LLM_QFL_AGENT_URL")
    lines = ran.decisions()
    assert [len(line["attempts"]) for line in lines] == [1, 2, 2]
    assert ran.summary["agent"]["uninformed"] == 2
    assert "uninformed: with the clients' numbers dealt out" in lines[1]["reason"]
    assert lines[1]["participants"] == [0, 1, 2]
    assert lines[1]["decided_by"] == "rule (when-it-pays)"
    assert [one.differs for one in audit(ran.folder)[1]] == [(), (), ()]
