"""README's plain Flower way: `flwr run .` with Flower's own local SuperLink."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from llm_qfl.cli.processes import TAG, end_all, members
from llm_qfl.cli.superlink import free_port
from tests import other_users
from tests.command import ROOT
from tests.other_users import Watch


@pytest.mark.slow
def test_the_flwr_command_of_readme(tmp_path: Path) -> None:
    block = (ROOT / "README.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^(FLWR_\S+) flwr run (.*)$", block, re.MULTILINE)
    switch, rest = line
    words = shlex.split(rest)
    assert words[-2] == "--federation-config"
    words[-1] = words[-1].replace("num-supernodes=4", "num-supernodes=2")
    small = (
        "run.clients=2 run.rounds=1 data.train_rows=80 data.test_rows=40 data.server_rows=40 "
        f"llm.epochs=1 train.steps=2 run.report=false run.output='{tmp_path / 'runs'}'"
    )
    tag = uuid.uuid4().hex
    name, _, value = switch.partition("=")
    environment = {
        **os.environ,
        name: value,
        TAG: tag,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
    }
    got = ""
    try:
        with (tmp_path / "printed").open("w") as printed:
            process = subprocess.Popen(
                ["flwr", "run", *words, "--run-config", small],
                cwd=ROOT,
                env=environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
                text=True,
            )
        watch = Watch(f"{TAG}={tag}")
        for _ in watch.looks(process, 240):
            if not got and (stores := watch.of("/gcs_server")):
                got = other_users.writes(stores[0])
    finally:
        end_all(members(tag), grace=5.0)
    found = list((tmp_path / "runs").glob("*-demo/summary.json"))
    assert found, (tmp_path / "printed").read_text()[-4000:]
    assert json.loads(found[0].read_text())["status"] == "completed"
    assert re.search(
        r"round 1: validation loss \d\.\d{4}, accuracy \d+\.\d %",
        (tmp_path / "printed").read_text(),
    )
    # The ClientApp closes Ray before Flower starts it (`prepare_ray`).
    assert got.startswith("refused")
    assert "InvalidAuthToken" in got
    assert watch.of("/raylet ")
    assert watch.beyond_this_machine() == {}
