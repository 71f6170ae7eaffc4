"""The parts of a deployed round, from when processes were seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_client_processes_of_one_deployment_are_found(tmp_path: Path) -> None:
    script = tmp_path / "flwr-clientapp"
    script.write_text("print('ready', flush=True); input()")
    env = {**os.environ, "LLM_QFL_LAUNCH": "mine"}
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in dict(clients("mine"))
        assert process.pid not in dict(clients("other"))
        process.communicate(b"\n")
    assert process.pid not in dict(clients("mine"))
