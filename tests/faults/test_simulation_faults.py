"""A simulation is killed, or its disk is full, in the middle of a run.

Minutes on two cores: `make test-faults`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.storage.checkpoints import last_checkpoint
from tests.command import llm_qfl, sets
from tests.faults.harness import (
    WORDS,
    comparable,
    deployed,
    note,
    same_model,
    start,
    wait_until,
)

SIMULATED = sets(*WORDS, "run.clients=3")


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A run in which nothing happens: what the others must end with."""
    run = start(home, *SIMULATED)
    code, said = run.end()
    assert code == 0, said
    return run.folder


def test_a_killed_launcher_leaves_a_run_that_goes_on(home: Path, whole: Path) -> None:
    run = start(home, *SIMULATED)
    run.in_round(3)
    run.process.kill()
    run.process.communicate()
    store = str(home / "elsewhere")  # what is cleaned is no site's memory
    cleaned = llm_qfl(home, "clean", "--yes", LLM_QFL_HOME=store)
    assert cleaned.returncode == 0, cleaned.stderr
    began = time.monotonic()
    again = start(home, "--resume", str(run.folder), resumed=run.folder)
    code, said = again.end()
    assert code == 0, said
    assert comparable(run.folder) == comparable(whole)
    assert same_model(run.folder, whole)
    note("launcher killed", resumed_seconds=time.monotonic() - began, load=os.getloadavg()[0])


def test_a_run_moves_from_simulation_to_a_deployment(home: Path, whole: Path) -> None:
    run = start(home, *SIMULATED)
    run.in_round(3)
    run.process.send_signal(signal.SIGINT)
    code, said = run.end()
    assert code == 130, said
    assert f"llm-qfl run --resume {run.folder}" in said
    with deployed(home) as fed:
        code, said = fed.resume(run.folder).end()
    assert code == 0, said
    assert comparable(run.folder) == comparable(whole)
    assert same_model(run.folder, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of some megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_ends_the_run_in_one_line_and_costs_no_round(
    home: Path, whole: Path, small_disk: Path
) -> None:
    run = start(home, *SIMULATED, *sets(f"run.folder={small_disk / 'run'}"))
    run.resumed = small_disk / "run"
    run.in_round(2)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    began = time.monotonic()
    code, said = run.end()
    told = time.monotonic() - began
    assert code == 1, said
    assert "No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said
    line = said.splitlines()[-1]
    assert last_checkpoint(run.folder) is not None
    filler.unlink()
    wait_until(lambda: not filler.exists(), "space")
    again = start(home, "--resume", str(run.folder), resumed=run.folder)
    code, said = again.end()
    assert code == 0, said
    assert comparable(run.folder) == comparable(whole)
    note("full disk", told_seconds=told, said=line, load=os.getloadavg()[0])
