"""A run on a deployment that is interrupted early is stopped there, or reported."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import llm_qfl.cli.run
from llm_qfl.cli.flower import Flwr
from llm_qfl.cli.run import Watch
from llm_qfl.cli.screen import Screen

TAKES = "import time; time.sleep(0.5); print('Successfully started run 42'); time.sleep(60)"


class Remote:
    """A deployment's SuperLink; its `flwr` records what is requested, and ends with a code."""

    simulated = False
    node_logs: tuple[Path, ...] = ()

    def __init__(self, folder: Path, code: int) -> None:
        (folder / "empty").mkdir()
        self.stopped = folder / "stopped"
        program = folder / "flwr"
        program.write_text(
            f"#!{sys.executable}\nimport sys, pathlib\n"
            f"if sys.argv[1] == 'stop':\n"
            f"    pathlib.Path({str(self.stopped)!r}).write_text(sys.argv[2])\n"
            f"    sys.exit({code})\nexec(sys.argv[2])\n"
        )
        program.chmod(0o755)
        self.flwr = Flwr(str(program), folder, dict(os.environ), folder / "run.log")

    def start(self) -> None: ...

    def dead(self) -> bool:
        return False

    def tail(self) -> str:
        return ""

    def close(self, grace: float = 0.0) -> int:
        for command in self.flwr.commands:
            command.kill()
            command.wait()
        return 0


@pytest.mark.parametrize(
    ("submission", "code", "stopped", "message"),
    [
        (TAKES, 0, "42", ""),
        (TAKES, 1, "42", "run 42 may go on"),
        ("print('refused')", 0, "", ""),
        ("import time; time.sleep(60)", 0, "", "a run may have begun all the same"),
    ],
)
def test_a_run_that_is_interrupted_before_its_id_is_known_is_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    submission: str,
    code: int,
    stopped: str,
    message: str,
) -> None:
    if not stopped:
        monkeypatch.setattr(llm_qfl.cli.run, "SUBMIT_SECONDS", 0.5 if message else 60.0)
    remote: Any = Remote(tmp_path, code)
    try:
        remote.flwr.start("run", submission, log=remote.flwr.run_log)
        Watch(remote, tmp_path, Screen(plain=True, quiet=False)).stop()
    finally:
        remote.close()
    assert (remote.stopped.read_text() if remote.stopped.exists() else "") == stopped
    shown = capsys.readouterr()
    assert message in shown.out + shown.err
    assert bool(message) == ("may" in shown.out + shown.err)
