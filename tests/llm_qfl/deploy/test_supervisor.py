"""Parts run on this machine: they start, are seen, come back and end; light processes here."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from core import UserError, read_json, write_json
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.deploy import commands
from llm_qfl.cli.deploy import supervisor as supervisor_module
from llm_qfl.cli.deploy.commands import server_parts, status, stop
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.parts import EXEC, GATE, NODE, SUPERLINK, home, running
from llm_qfl.cli.deploy.supervisor import STATE, Supervisor, read_state
from llm_qfl.cli.processes import TAG, members, wait_for
from tests.llm_qfl.deploy.conftest import JOINS, Fakes

REFUSED = "print('Exit Code: 305\\nFailed\\n[code: 2004] Failed to activate SuperNode.\\n\\nmore')"
FAILS = "print('Exit Code: 300\\nUnable to parse\\nthe private key file.\\n\\nmore')"


def step_until(supervisor: Supervisor, done: Callable[[], object]) -> None:
    """Let a supervisor look at its parts until something is so."""

    def look() -> bool:
        supervisor.step(time.monotonic())
        supervisor.ready = supervisor.ready or all(part.ready for part in supervisor.parts)
        return bool(done())

    assert wait_for(look, 60.0), supervisor.parts


def started(supervisor: Supervisor) -> Supervisor:
    step_until(supervisor, lambda: supervisor.ready)
    supervisor.step(time.monotonic())
    return supervisor


def test_parts_start_are_known_and_end(fakes: Fakes) -> None:
    supervisor = fakes.supervisor(fakes.part(), fakes.part(name="node-1"))
    try:
        started(supervisor)
        state = read_state(fakes.folder)
        assert state["ready"]
        assert state["pid"] == os.getpid()
        assert state["nodes"] == {"node-0": "77", "node-1": "77"}
        assert [line.split() for line in fakes.lines] == [
            ["node-0", "joined", "as", "77"],
            ["node-1", "joined", "as", "77"],
        ]
    finally:
        assert supervisor.close(grace=3.0) == 0
    assert not members(fakes.tag)
    assert read_state(fakes.folder) == {}


def test_a_part_that_is_killed_is_started_again(fakes: Fakes, impatient: None) -> None:
    part = fakes.part()
    supervisor = started(fakes.supervisor(part))
    try:
        first = part.process
        assert first is not None
        first.kill()
        step_until(supervisor, lambda: not part.ready)
        assert "ended (killed by signal 9); starting it again" in fakes.lines[-1]
        assert not read_state(fakes.folder)["ready"]
        step_until(supervisor, lambda: part.ready)
        assert fakes.lines[-1].split() == ["node-0", "joined", "as", "77"]
        assert read_state(fakes.folder)["ready"]
        assert part.process is not first
    finally:
        supervisor.close(grace=3.0)


def test_a_part_that_ends_again_and_again_is_reported_once(fakes: Fakes, impatient: None) -> None:
    flag = fakes.folder / "once"
    part = fakes.part(f"import os\nif os.path.exists({str(flag)!r}): {REFUSED}\nelse: {JOINS}")
    supervisor = started(fakes.supervisor(part))
    try:
        flag.touch()
        assert part.process is not None
        part.process.kill()
        step_until(supervisor, lambda: part.log.read_text().count("305") > 2)
        assert sum("starting it again" in line for line in fakes.lines) == 1
        flag.unlink()
        step_until(supervisor, lambda: part.ready)
    finally:
        supervisor.close(grace=3.0)


@pytest.mark.parametrize("kind", [EXEC, GATE])
def test_what_serves_a_server_starts_after_it_and_again_with_it(
    fakes: Fakes, impatient: None, kind: str
) -> None:
    server, beside = fakes.part(), fakes.part("import time; time.sleep(60)", "beside", kind)
    beside.needs = server
    supervisor = fakes.supervisor(server, beside)
    try:
        supervisor.step(time.monotonic())
        assert server.process is not None
        assert beside.process is None
        started(supervisor)
        first = beside.process
        server.process.kill()
        step_until(supervisor, lambda: server.ready and beside.ready and beside.process != first)
        assert first is not None
        assert first.poll() is not None
    finally:
        supervisor.close(grace=3.0)


def test_nodes_stay_when_their_superlink_starts_again(fakes: Fakes, impatient: None) -> None:
    node = fakes.part()
    node.needs = server = fakes.part("import time; time.sleep(60)", "server", EXEC)
    supervisor = started(fakes.supervisor(server, node))
    try:
        first = node.process
        assert server.process is not None
        server.process.kill()
        step_until(supervisor, lambda: not server.ready)
        step_until(supervisor, lambda: server.ready)
        assert node.process is first
    finally:
        supervisor.close(grace=3.0)


def test_a_node_that_is_not_admitted_tries_for_a_while(fakes: Fakes, impatient: None) -> None:
    assert fakes.supervisor(fakes.part(REFUSED)).serve(lambda: None) == 1
    assert "node-0 did not start: the SuperLink did not admit it" in fakes.lines[-1]
    assert sum("not admitted yet" in line for line in fakes.lines) == 1
    assert (fakes.folder / "node-0.log").read_text().count("305") > 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (FAILS, "Unable to parse the private key file. (log: "),
        ("print('SuperNode terminated gracefully.')", "its clock is more than 5 seconds ahead"),
    ],
)
def test_a_part_that_cannot_start_says_why_at_once(fakes: Fakes, code: str, expected: str) -> None:
    assert fakes.supervisor(fakes.part(code)).serve(lambda: None) == 1
    assert expected in fakes.lines[-1]
    assert read_state(fakes.folder) == {}


def test_a_port_that_is_taken_is_named(fakes: Fakes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        code = f"import socket; socket.create_server(('127.0.0.1', {port}))"
        (fakes.folder / "home").mkdir()
        write_json(fakes.folder / "home" / "superlink.json", {"port": port})
        part = fakes.part(code, "superlink", SUPERLINK)
        assert fakes.supervisor(part).serve(lambda: None) == 1
    assert f"superlink did not start: port {port} of this machine is in use" in fakes.lines[-1]


def test_the_state_is_ready_once_the_user_has_read_so(fakes: Fakes) -> None:
    """`up --detach` returns then, and prints what the log has."""

    def ready() -> None:
        assert not read_state(fakes.folder)["ready"]
        os.kill(os.getpid(), signal.SIGTERM)

    assert fakes.supervisor(fakes.part()).serve(ready) == 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(fakes: Fakes, sign: signal.Signals) -> None:
    assert fakes.supervisor(fakes.part()).serve(lambda: os.kill(os.getpid(), sign)) == 0
    assert "stopping the parts ..." in fakes.lines
    assert not members(fakes.tag)


def test_a_signal_before_all_is_ready_is_an_interruption(fakes: Fakes) -> None:
    code = f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM); import time; time.sleep(60)"
    assert fakes.supervisor(fakes.part(code)).serve(lambda: None) == 130
    assert not members(fakes.tag)


def test_what_a_killed_supervisor_left_is_ended(fakes: Fakes) -> None:
    part = fakes.part()
    part.start(fakes.tag)
    write_json(fakes.folder / STATE, {"pid": 999999999, "start": 1.0, "tag": fakes.tag})
    assert read_state(fakes.folder) == {}
    assert stop(fakes.folder) == 0
    assert wait_for(part.ended, 60.0)
    assert not (fakes.folder / STATE).exists()


def test_a_state_of_another_process_of_that_id_is_no_state(fakes: Fakes) -> None:
    write_json(fakes.folder / STATE, {"pid": os.getpid(), "start": 1.0, "tag": "x"})
    assert read_state(fakes.folder) == {}


def test_a_long_log_begins_anew_and_the_node_stays_known(fakes: Fakes) -> None:
    part = fakes.part()
    supervisor = started(fakes.supervisor(part))
    try:
        part.trim_log()
        assert "77" in part.log.read_text()
        part.trim_log(most=5)
        assert part.log.read_text() == ""
        assert "77" in part.log.with_name("node-0.log.1").read_text()
        assert part.answers()
        assert part.node_id == "77"
    finally:
        supervisor.close(grace=3.0)


@pytest.fixture
def runs(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return what says whether the parts of a made deployment answer."""
    make_deployment(fakes.folder / "fed", Options(1))
    for name in ("superlink", "node-0"):
        home(fakes.folder / "fed" / name)

    def choose(does: bool) -> None:
        monkeypatch.setattr(commands, "answers", lambda *_: does)

    return choose


def test_status_is_0_only_if_all_is_well(
    fakes: Fakes, runs: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fakes.folder / "fed"
    assert status(folder) == 1
    assert "nothing runs from" in capsys.readouterr().out
    supervisor = fakes.supervisor(fakes.part())
    supervisor.folder = folder
    try:
        started(supervisor)
        runs(True)
        assert status(folder) == 0
        out = capsys.readouterr().out
        assert "superlink-exec starts work" in out
        assert "396 days left" in out or "397 days left" in out
        runs(False)
        assert status(folder) == 1
        assert "does not answer" in capsys.readouterr().out
        runs(True)
        supervisor.parts[0].problem = "its key is not registered there"
        supervisor.parts[0].ready = False
        supervisor._write_state()
        assert status(folder) == 1
    finally:
        supervisor.close(grace=3.0)


def test_a_folder_has_one_supervisor(fakes: Fakes) -> None:
    """A second one neither starts anything nor takes away what the first one wrote."""
    other = Supervisor(fakes.folder, [fakes.part()], "other", fakes.lines.append)
    refused: list[str] = []

    def meet() -> None:
        with pytest.raises(UserError, match="by another process") as caught:
            other.serve(lambda: None)
        refused.append(str(caught.value))
        other.close(grace=0.0)
        assert read_state(fakes.folder)["tag"] == fakes.tag
        os.kill(os.getpid(), signal.SIGTERM)

    assert fakes.supervisor(fakes.part()).serve(meet) == 0
    assert len(refused) == 1
    assert other.parts[0].process is None
    assert not (fakes.folder / STATE).exists()


@pytest.mark.parametrize(
    ("code", "ends"), [("raise SystemExit('llm-qfl: x')", 1), ("import time; time.sleep(60)", 130)]
)
def test_up_that_fails_or_is_interrupted_early_leaves_nothing(
    fakes: Fakes,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    ends: int,
) -> None:
    """The supervisor has not written a state yet: only its process is known."""
    begun: list[int] = []

    def interrupt(done: Callable[[], bool], seconds: float) -> bool:
        if ends == 130 and not begun:
            begun.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return wait_for(done, seconds)

    monkeypatch.setattr(
        supervisor_module, "deploy_command", lambda *_: [sys.executable, "-c", code]
    )
    monkeypatch.setenv(TAG, fakes.tag)
    monkeypatch.setattr(commands, "wait_for", interrupt)
    failure = f"x (log: {fakes.folder}/logs/up.log)"
    with pytest.raises(LaunchError, match=re.escape(failure)) if ends == 1 else nullcontext():
        assert commands._detached(fakes.folder) == ends
    assert not members(fakes.tag)


def test_a_full_disk_is_told_once_and_supervision_goes_on(
    fakes: Fakes, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    part = fakes.part()
    supervisor = started(fakes.supervisor(part))
    try:
        assert part.process is not None
        with monkeypatch.context() as patch:
            patch.setattr(supervisor_module, "write_json", full)
            part.process.kill()
            step_until(supervisor, lambda: part.process is None)
            step_until(supervisor, lambda: part.ready)
        assert sum("No space left on device" in line for line in fakes.lines) == 1
        step_until(supervisor, lambda: read_state(fakes.folder)["ready"])
    finally:
        supervisor.close(grace=3.0)


def test_stop_names_what_remains(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = started(fakes.supervisor(fakes.part()))
    process = supervisor.parts[0].process
    assert process is not None
    write_json(fakes.folder / STATE, {**read_json(fakes.folder / STATE), "start": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(commands, "end_all", lambda some, grace: set(some))
        assert stop(fakes.folder) == 1
    assert f"still running: {process.pid}" in capsys.readouterr().out
    assert stop(fakes.folder) == 0  # the state was kept, so it is found again
    process.wait()
    assert not members(fakes.tag)


def test_a_node_waits_for_a_superlink_elsewhere(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "START_SECONDS", 0.0)
    supervisor = fakes.supervisor(fakes.part("import time; time.sleep(0.7); " + JOINS))
    try:
        started(supervisor)
        assert sum("waiting for the SuperLink" in line for line in fakes.lines) == 1
    finally:
        supervisor.close(grace=3.0)


def test_a_part_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core.py").write_text("raise SystemExit('hostile')")
    monkeypatch.chdir(tmp_path)
    words = supervisor_module.deploy_command("up", tmp_path / "fed")
    log = tmp_path / "logs" / "log"
    assert supervisor_module.spawn(log, words).wait(60) == 2
    assert "no deployment in" in log.read_text()


def test_every_way_to_start_a_superlink_that_others_reach_has_the_gate(tmp_path: Path) -> None:
    alone, reached = tmp_path / "alone", tmp_path / "reached"
    make_deployment(alone, Options(1))
    make_deployment(reached, Options(1, hosts=("hub.example.org",)))
    names = [part.name for part in server_parts(SUPERLINK, alone / "superlink", alone / "logs")]
    assert names == ["superlink", "superlink-exec"]
    superlink, starter, gate = server_parts(SUPERLINK, reached / "superlink", reached / "superlink")
    assert gate.kind == GATE
    assert gate.needs is starter.needs is superlink  # and it is ready once the keys are settled
    assert [part.name for part in server_parts(NODE, alone / "node-0", alone)] == [
        "node-0",
        "node-0-exec",
    ]


def test_keys_are_settled_before_the_superlink_is_ready(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    superlink = fakes.part("import time; time.sleep(60)", "superlink", SUPERLINK)
    gate = fakes.part("import time; time.sleep(60)", "gate", GATE)
    gate.needs = superlink
    seen: list[object] = []

    def register(folder: Path, port: int) -> int:
        seen.append(gate.process)
        return 2

    monkeypatch.setattr(supervisor_module, "register", register)
    monkeypatch.setattr(supervisor_module, "running", lambda *_: {"port": 9})
    supervisor = fakes.supervisor(superlink, gate)
    try:
        started(supervisor)
        assert seen == [None]
        first, second = (" ".join(line.split()) for line in fakes.lines)
        assert first == "superlink 127.0.0.1:9, TLS, 2 nodes registered"
        assert second == "gate only nodes may pass"
    finally:
        supervisor.close(grace=3.0)


def test_a_part_that_has_ended_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        import psutil

        began = psutil.Process(process.pid).create_time()
        record = {"pid": process.pid, "start": began, "port": 1}
        write_json(tmp_path / "home" / f"{NODE}.json", record)
        assert running(tmp_path, NODE) == record
    assert running(tmp_path, NODE) == {}
