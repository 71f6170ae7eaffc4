"""The parts of a deployed round, from when processes were seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.deploy_watch import Parts, Seen, clients, parts_of


def test_the_parts_make_up_the_round() -> None:
    seen = [
        Seen(1.0, 2.0, 9.0),
        Seen(12.0, 15.0, 1.0),
        Seen(13.5, 17.0, 2.0),
        Seen(21.0, 22.0, 4.0),
    ]
    first, second = parts_of([10.0, 20.0, 25.0], seen)
    assert first == Parts(until=3.5, running=3.5, after=3.0, cpu=1.5)
    assert second == Parts(1.0, 1.0, 3.0, 4.0)
    assert first.until + first.running + first.after == 10.0


def test_a_round_without_processes_has_no_parts() -> None:
    assert parts_of([1.0, 2.0], []) == []
    assert parts_of([], []) == []


def test_client_processes_are_told_from_others(tmp_path: Path) -> None:
    told = {"7": b"/bin/python\0/x/flwr-clientapp\0--token\0s", "8": b"vi\0flwr-clientapp-notes"}
    for pid, words in told.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(words)
        (tmp_path / pid / "environ").write_bytes(b"A=b\0LLM_QFL_LAUNCH=mine\0")
        fields = ["S", *"0" * 10, "300", "100", *"0" * 10]
        (tmp_path / pid / "stat").write_text(f"{pid} (a) b) {' '.join(fields)}")
    (tmp_path / "9").mkdir()  # gone while it was looked at
    assert list(clients("other", tmp_path)) == []
    assert list(clients("mine", tmp_path)) == [(7, 400 / os.sysconf("SC_CLK_TCK"))]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_a_real_process_is_found(tmp_path: Path) -> None:
    script = tmp_path / "flwr-clientapp"
    script.write_text("print('ready', flush=True); input()")
    env = {**os.environ, "LLM_QFL_LAUNCH": "mine"}
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in dict(clients("mine"))
        process.communicate(b"\n")
    assert process.pid not in dict(clients("mine"))
