"""Ctrl-C and SIGTERM end every command without a traceback, and what it started with it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_qfl.cli import main
from tests.command import ROOT

COMMANDS = {
    "run": ("llm_qfl.cli.run.run",),
    "cost": ("llm_qfl.cli.cost.cost",),
    "jobs": ("llm_qfl.cli.commands.jobs",),
    "report": ("llm_qfl.cli.commands.report",),
    "audit": ("llm_qfl.cli.commands.audit",),
    "compare": ("llm_qfl.cli.compare.compare", "a", "b"),
    "clean": ("llm_qfl.cli.commands.clean",),
    "settings": ("llm_qfl.cli.commands.settings",),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_ends_in_one_line(
    command: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    called, *words = COMMANDS[command]
    monkeypatch.setattr(called, lambda *given, **more: signal.raise_signal(number))
    before = signal.getsignal(number)
    assert main([command, *words]) == 128 + number
    assert capsys.readouterr().err == f"llm-qfl: ended by {number.name}\n"
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_ends_and_says_so(number: int, code: int) -> None:
    """It waits for a reader that does not come: what it prints is more than the pipe takes."""
    process = start("settings")
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    assert process.stdout.read(1)  # it is at work
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert error == f"llm-qfl: ended by {signal.Signals(number).name}\n".encode()


def test_what_a_command_has_started_ends_with_it() -> None:
    process = start("cost")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (child,) = wait(lambda: children.read_text().split())
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in error
    wait(lambda: not Path(f"/proc/{child}").exists())


def test_an_error_of_the_system_without_a_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm_qfl.cli.commands.clean", full)
    assert main(["clean"]) == 1
    assert capsys.readouterr().err == "llm-qfl: No space left on device\n"


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "llm_qfl.cli", *words],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait(look: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to that")
