"""Light processes in the place of a deployment's parts."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.serve
from llm_qfl.cli.deploy.parts import Part
from llm_qfl.cli.deploy.serve import Supervisor
from llm_qfl.cli.processes import TAG


class Fakes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = f"test-{os.getpid()}-{time.monotonic_ns()}"
        self.said: list[str] = []

    def part(self, code: str, name: str = "node-0") -> Part:
        home = self.folder / "home"
        (home / "empty").mkdir(parents=True, exist_ok=True)
        env = {**os.environ, TAG: self.tag, "FLWR_HOME": str(home)}
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-c", code]
        return Part(name, self.folder, command, env, log, 9, lambda _: True)

    def supervisor(self, *parts: Part) -> Supervisor:
        return Supervisor(self.folder, parts, self.tag, "flwr", self.said.append)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_qfl.cli.deploy.serve, "AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(llm_qfl.cli.deploy.serve, "ADMIT_SECONDS", 0.5)
