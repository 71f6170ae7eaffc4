"""A deployment's supervisor: parts start, are seen, come back and end; light processes here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.commands
import llm_qfl.cli.deploy.serve
import llm_qfl.cli.run
from core import UserError, read_json, write_json
from llm_qfl.cli.deploy.commands import status
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.serve import STATE, Supervisor, read_state, serve, stop_supervisor
from llm_qfl.cli.processes import members, wait_for
from llm_qfl.cli.superlink import LaunchError
from tests.cli.conftest import Fakes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

JOINS = "import time; print('SuperNode ID: 77', flush=True); time.sleep(60)"
REFUSED = "print('Exit Code: 305\\nFailed\\n[code: 2004] Failed to activate SuperNode.\\n\\nmore')"
FAILS = "print('Exit Code: 300\\nUnable to parse\\nthe private key file.\\n\\nmore')"


def test_parts_start_are_known_and_end(fakes: Fakes) -> None:
    supervisor = fakes.supervisor(fakes.part(JOINS), fakes.part(JOINS, "node-1"))
    try:
        supervisor.start()
        state = read_state(fakes.folder)
        assert state["ready"]
        assert state["pid"] == os.getpid()
        assert [part["node"] for part in state["parts"].values()] == ["77", "77"]
        assert [line.split() for line in fakes.said] == [
            ["node-0", "joined", "as", "77"],
            ["node-1", "joined", "as", "77"],
        ]
    finally:
        assert supervisor.close(grace=3.0) == 0
    assert not members(fakes.tag)
    assert read_state(fakes.folder) == {}


def test_a_part_that_is_killed_is_started_again(fakes: Fakes, impatient: None) -> None:
    part = fakes.part(JOINS)
    supervisor = fakes.supervisor(part)
    try:
        supervisor.start()
        assert part.process is not None
        first = part.process.pid
        os.kill(first, signal.SIGKILL)
        assert wait_for(part.dead, 60.0)
        supervisor.look(time.monotonic())
        assert "ended (killed by signal 9); starting it again" in fakes.said[-1]
        assert not read_state(fakes.folder)["ready"]

        def back() -> bool:
            supervisor.look(time.monotonic())
            return "is back" in fakes.said[-1]

        assert wait_for(back, 60.0)
        state = read_state(fakes.folder)
        assert state["ready"]
        assert state["parts"]["node-0"]["pid"] == part.process.pid != first
    finally:
        supervisor.close(grace=3.0)


def test_a_node_that_is_not_let_in_knocks_for_a_while(fakes: Fakes, impatient: None) -> None:
    supervisor = fakes.supervisor(fakes.part(REFUSED))
    try:
        with pytest.raises(LaunchError, match="node-0 did not start: the SuperLink did not admit"):
            supervisor.start()
    finally:
        supervisor.close(grace=1.0)
    assert sum("not admitted yet" in line for line in fakes.said) == 1
    assert (fakes.folder / "node-0.log").read_text().count("305") > 1


def test_a_part_that_cannot_start_says_why_at_once(fakes: Fakes) -> None:
    assert serve(fakes.supervisor(fakes.part(FAILS)), lambda: None) == 1
    assert (fakes.folder / "node-0.log").read_text().count("Exit Code: 300") == 1
    assert "Unable to parse the private key file. (log: " in fakes.said[-1]
    assert read_state(fakes.folder) == {}


def test_a_node_that_ends_without_a_word_has_a_wrong_clock(fakes: Fakes) -> None:
    silent = "print('Starting Flower SuperNode'); print('SuperNode terminated gracefully.')"
    assert serve(fakes.supervisor(fakes.part(silent)), lambda: None) == 1
    assert "its clock is more than 5 seconds ahead" in fakes.said[-1]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(fakes: Fakes, sign: signal.Signals) -> None:
    supervisor = fakes.supervisor(fakes.part(JOINS))
    assert serve(supervisor, lambda: os.kill(os.getpid(), sign)) == 0
    assert "stopping the parts ..." in fakes.said
    assert not members(fakes.tag)


def test_what_a_killed_supervisor_left_is_ended(fakes: Fakes) -> None:
    part = fakes.part(JOINS)
    part.start()
    write_json(fakes.folder / STATE, {"pid": 999999999, "start": "1", "tag": fakes.tag})
    assert read_state(fakes.folder) == {}
    assert stop_supervisor(fakes.folder) == (False, set())
    assert wait_for(part.dead, 60.0)
    assert not (fakes.folder / STATE).exists()


def test_a_state_of_another_process_of_that_id_is_no_state(fakes: Fakes) -> None:
    write_json(fakes.folder / STATE, {"pid": os.getpid(), "start": "1", "tag": "x"})
    assert read_state(fakes.folder) == {}


def test_a_long_log_begins_anew_and_the_node_stays_known(fakes: Fakes) -> None:
    part = fakes.part(JOINS)
    part.start()
    try:
        assert wait_for(part.ready, 60.0)
        part.trim_log()
        assert "77" in part.log.read_text()
        part.trim_log(most=5)
        assert part.log.read_text() == ""
        assert "77" in part.log.with_name("node-0.log.1").read_text()
        assert part.ready()
        assert part.node_id() == "77"
    finally:
        assert part.process is not None
        part.process.kill()
        part.process.wait()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def choose(answers: bool) -> None:
        monkeypatch.setattr("llm_qfl.cli.deploy.commands.healthy", lambda *_, **__: answers)

    return choose


def test_status_is_0_only_if_all_is_well(
    fakes: Fakes, answering: Callable[[bool], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(fakes.folder) == 1
    assert "nothing runs from" in capsys.readouterr().out
    supervisor = fakes.supervisor(fakes.part(JOINS))
    try:
        supervisor.start()
        answering(True)
        assert status(fakes.folder) == 0
        assert "well, node 77" in capsys.readouterr().out
        answering(False)
        assert status(fakes.folder) == 1
        assert "does not answer" in capsys.readouterr().out
        answering(True)
        state = read_json(fakes.folder / STATE)
        write_json(fakes.folder / STATE, {**state, "ready": False})
        assert status(fakes.folder) == 1
    finally:
        supervisor.close(grace=3.0)


def register(fakes: Fakes, prints: str, code: int = 0, keys: int = 1) -> str:
    """Register keys with a fake `flwr` that prints something and ends; return what we say."""
    program = fakes.folder / "flwr"
    text = f"import sys\nprint({prints!r})\nprint('warning', file=sys.stderr)\nsys.exit({code})\n"
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    (fakes.folder / "nodes").mkdir()
    for key in range(keys):
        (fakes.folder / "nodes" / f"node-{key}.pub").write_text("key")
    Supervisor(fakes.folder, [], fakes.tag, str(program), fakes.said.append).register(
        fakes.part(JOINS, "superlink")
    )
    return fakes.said[-1]


@pytest.mark.parametrize(
    "prints",
    [
        '{"success": true, "node-id": 5}',
        '{\n  "success": false,\n  "error-message": "Public key already in use."\n}',
    ],
)
def test_a_key_is_registered_once_and_again(fakes: Fakes, prints: str) -> None:
    assert "TLS, 3 nodes registered" in register(fakes, prints, keys=3)


@pytest.mark.parametrize(
    ("prints", "code", "said"),
    [
        # Flower's exit code is 0 when the SuperLink refuses.
        (
            '{"success": false, "error-message": "No room\\nfor it"}',
            0,
            "registered: No room for it",
        ),
        ("Unable to load the already spoilt key", 1, "registered: Unable to load the already"),
        ("{}", 0, "registered: {}"),
    ],
)
def test_a_refused_key_is_told(fakes: Fakes, prints: str, code: int, said: str) -> None:
    with pytest.raises(LaunchError, match=said):
        register(fakes, prints, code)


def test_a_folder_has_one_supervisor(fakes: Fakes) -> None:
    """A second one neither starts anything nor takes away what the first one wrote."""
    first = fakes.supervisor(fakes.part(JOINS))
    other = Supervisor(fakes.folder, [fakes.part(JOINS)], "other", "flwr", fakes.said.append)
    refused: list[str] = []

    def meet() -> None:
        with pytest.raises(UserError, match="by another process") as caught:
            serve(other, lambda: None)
        refused.append(str(caught.value))
        other.close(grace=0.0)
        assert read_state(fakes.folder)["tag"] == fakes.tag
        os.kill(os.getpid(), signal.SIGTERM)

    assert serve(first, meet) == 0
    assert len(refused) == 1
    assert other.parts[0].process is None
    assert not (fakes.folder / STATE).exists()


def test_up_that_is_interrupted_early_leaves_nothing(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor has not written a state yet: only its process is known."""
    begun: list[subprocess.Popen[bytes]] = []

    def supervise(folder: Path, log: Path) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen([sys.executable, "-c", JOINS]))
        return begun[0]

    def interrupt(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return wait_for(lambda: False, 60.0)

    monkeypatch.setattr(llm_qfl.cli.deploy.commands, "_supervise", supervise)
    monkeypatch.setattr(llm_qfl.cli.deploy.commands, "_comes_up", interrupt)
    assert llm_qfl.cli.deploy.commands._detached(fakes.folder) == 130
    assert begun[0].returncode == -signal.SIGTERM


def test_a_full_disk_is_told_once_and_supervision_goes_on(
    fakes: Fakes, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    part = fakes.part(JOINS)
    supervisor = fakes.supervisor(part)
    try:
        supervisor.start()
        monkeypatch.setattr(llm_qfl.cli.deploy.serve, "write_json", full)
        assert part.process is not None
        part.process.kill()
        part.process.wait()
        supervisor.look(0.0)
        supervisor.look(1.0)
        assert not part.dead()
        assert sum("cannot be written" in line for line in fakes.said) == 1
        monkeypatch.undo()
        assert wait_for(lambda: supervisor.look(1.0) or read_state(fakes.folder)["ready"], 30.0)
    finally:
        supervisor.close(grace=3.0)


def test_stop_names_what_remains(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = fakes.supervisor(fakes.part(JOINS))
    supervisor.start()
    process = supervisor.parts[0].process
    assert process is not None
    state = read_json(fakes.folder / STATE)
    write_json(fakes.folder / STATE, {**state, "start": "of another"})
    with monkeypatch.context() as patch:
        patch.setattr(llm_qfl.cli.deploy.serve, "end_all", lambda some, grace: set(some))
        assert llm_qfl.cli.deploy.commands.stop(fakes.folder) == 1
    assert f"still running: {process.pid}" in capsys.readouterr().out
    assert (
        llm_qfl.cli.deploy.commands.stop(fakes.folder) == 0
    )  # the state was kept, so it is found again
    process.wait()
    assert not members(fakes.tag)


def test_a_node_waits_for_a_superlink_elsewhere(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_qfl.cli.deploy.serve, "START_SECONDS", 0.0)
    late = "import time; time.sleep(0.7); " + JOINS
    supervisor = fakes.supervisor(fakes.part(late))
    supervisor.patient = True
    try:
        supervisor.start()
        assert sum("waiting for the SuperLink" in line for line in fakes.said) == 1
    finally:
        supervisor.close(grace=3.0)


def test_a_detached_supervisor_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core.py").write_text("raise SystemExit('hostile')")
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    assert llm_qfl.cli.deploy.commands._supervise(tmp_path / "fed", log).wait(60) == 2
    assert "no deployment in" in log.read_text()


def test_status_says_how_long_the_certificate_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_deployment(tmp_path / "fed", Options(1))
    monkeypatch.setattr(llm_qfl.cli.deploy.commands, "read_state", lambda folder: {"ready": True})
    assert status(tmp_path / "fed") == 0
    out = capsys.readouterr().out
    assert "396 days left" in out or "397 days left" in out
