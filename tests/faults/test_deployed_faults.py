"""Parts of a real deployment die in the middle of a run: nothing that was aggregated is lost.

Minutes on two cores: `make test-faults`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import read_json
from tests.command import llm_qfl
from tests.faults.harness import (
    Deployment,
    children,
    comparable,
    deployed,
    note,
    same_model,
    tagged,
    wait_until,
)


@pytest.fixture(scope="module")
def fed(home: Path) -> Iterator[Deployment]:
    with deployed(home) as made:
        yield made


@pytest.fixture(scope="module")
def whole(fed: Deployment) -> Path:
    """A run in which nothing happens: what the others must end with."""
    run = fed.run()
    code, printed = run.end()
    assert code == 0, printed
    return run.folder


def goes_on(fed: Deployment, folder: Path, whole: Path) -> None:
    """Resume a run; it must end as the one in which nothing happened."""
    code, printed = fed.resume(folder).end()
    assert code == 0, printed
    assert comparable(folder) == comparable(whole)
    assert same_model(folder, whole)


def test_a_node_killed_in_training_is_back_and_only_its_round_is_without_it(
    fed: Deployment, whole: Path
) -> None:
    # Its SuperLink takes it in again within a minute; a round lasts five seconds.
    run = fed.run("run.round_timeout=90", "run.rounds=24")
    run.in_round(2)
    before = fed.part("node-1")["pid"]
    wait_until(lambda: children(fed.part("node-1-exec")["pid"], "clientapp"), "the node at work")
    os.kill(before, signal.SIGKILL)
    began = time.monotonic()
    code, printed = run.end()
    assert code == 0, printed
    assert fed.part("node-1")["pid"] != before
    rounds = run.events("round")
    assert len(rounds) == 24
    assert any("client 1:" in failure for failure in rounds[1]["failures"])
    assert rounds[1]["aggregated"] == [0, 2]
    assert "client 1" in printed
    back = next(e["round"] for e in rounds[2:] if 1 in e["aggregated"])
    wait_until(fed.well, "all parts to be well")
    note(
        "SuperNode killed in training",
        round_seconds=rounds[1]["seconds"],
        back_in_round=back,
        run_seconds=time.monotonic() - began,
        load=os.getloadavg()[0],
        failures=rounds[1]["failures"],
    )


def test_a_node_killed_while_its_answer_is_on_the_way(fed: Deployment, whole: Path) -> None:
    """The SuperLink stands still meanwhile, so that the answer stays on the way."""
    run = fed.run("run.round_timeout=90")
    run.in_round(2)
    parts = "superlink", "node-1", "node-1-exec"
    superlink, node, starter = (fed.part(name)["pid"] for name in parts)
    sent = fed.log("node-1").count("Sending:")
    wait_until(lambda: children(starter, "clientapp"), "the node at work")
    os.kill(superlink, signal.SIGSTOP)
    try:
        wait_until(lambda: fed.log("node-1").count("Sending:") > sent, "its answer")
        time.sleep(0.5)
        os.kill(node, signal.SIGKILL)
    finally:
        os.kill(superlink, signal.SIGCONT)
    began = time.monotonic()
    code, printed = run.end()
    assert code == 0, printed
    rounds = run.events("round")
    assert len(rounds) == 4
    assert rounds[1]["aggregated"] == [0, 2]
    assert any("client 1:" in failure for failure in rounds[1]["failures"])
    assert rounds[1]["seconds"] < 90 + 30
    wait_until(fed.well, "all parts to be well")
    note(
        "SuperNode killed in upload",
        round_seconds=rounds[1]["seconds"],
        failures=rounds[1]["failures"],
        aggregated=[e["aggregated"] for e in rounds],
        run_seconds=time.monotonic() - began,
        load=os.getloadavg()[0],
    )


def test_a_node_that_stands_still_costs_a_deadline_and_is_counted_later(fed: Deployment) -> None:
    run = fed.run("run.round_timeout=25", "run.rounds=5")
    run.in_round(2)
    pid, starter = (fed.part(name)["pid"] for name in ("node-2", "node-2-exec"))
    wait_until(lambda: children(starter, "clientapp"), "the node at work")
    stopped = [pid, starter, *children(starter, "flower|flwr|clientapp")]
    for one in stopped:
        os.kill(one, signal.SIGSTOP)
    wait_until(lambda: len(run.events("round")) >= 2, "the round to end")
    for one in stopped:
        os.kill(one, signal.SIGCONT)
    code, printed = run.end()
    assert code == 0, printed
    second = run.events("round")[1]
    assert second["aggregated"] == [0, 1]
    assert second["seconds"] < 25 + 20
    late = run.events("late")
    note(
        "client slower than the deadline",
        deadline=25,
        round_seconds=second["seconds"],
        failures=second["failures"],
        late=[(e["round"], e["client"], e["circuits"], e["problem"]) for e in late],
        rolls=[{k: e[k] for k in ("gone", "busy", "back")} for e in run.events("roll")],
        load=os.getloadavg()[0],
    )
    wait_until(fed.well, "all parts to be well")


def test_the_superlink_dies_and_the_run_goes_on_when_resumed(fed: Deployment, whole: Path) -> None:
    run = fed.run()
    run.in_round(3)
    os.kill(fed.part("superlink")["pid"], signal.SIGKILL)
    began = time.monotonic()
    code, printed = run.end()
    reported = time.monotonic() - began
    assert code == 1, printed
    assert "Traceback" not in printed
    assert f"llm-qfl run --resume {run.folder}" in printed
    wait_until(fed.well, "all parts to be well")
    well = time.monotonic() - began
    goes_on(fed, run.folder, whole)
    note("SuperLink killed", reported_seconds=reported, well_seconds=well, load=os.getloadavg()[0])


def test_the_serverapp_dies_and_the_run_goes_on_when_resumed(fed: Deployment, whole: Path) -> None:
    run = fed.run()
    run.in_round(3)
    (server,) = children(fed.part("superlink-exec")["pid"], "serverapp")
    os.kill(server, signal.SIGKILL)
    began = time.monotonic()
    code, printed = run.end()
    assert code == 1, printed
    assert "Traceback" not in printed
    reported = time.monotonic() - began
    goes_on(fed, run.folder, whole)
    note("ServerApp killed", reported_seconds=reported, load=os.getloadavg()[0])


def test_a_stop_in_the_middle_ends_everything_in_order(home: Path, whole: Path) -> None:
    with deployed(home, 3, "other") as other:
        run = other.run()
        run.in_round(2)
        tag = other.state["tag"]
        began = time.monotonic()
        assert llm_qfl(home, "deploy", "stop", "other").returncode == 0
        stopped = time.monotonic() - began
        assert not tagged(tag)
        code, printed = run.end()
        reported = time.monotonic() - began
        assert code == 1, printed
        assert "Traceback" not in printed
    with deployed(home, 3, "other") as other:
        goes_on(other, run.folder, whole)
    assert read_json(run.folder / "summary.json")["status"] == "completed"
    note(
        "SIGTERM to all",
        stopped_seconds=stopped,
        reported_seconds=reported,
        load=os.getloadavg()[0],
    )
