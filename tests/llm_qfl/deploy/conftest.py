"""Light processes in the place of a deployment's parts."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.supervisor
from llm_qfl.cli.deploy.parts import NODE
from llm_qfl.cli.deploy.supervisor import Part, Supervisor

JOINS = "import time; print('SuperNode ID: 77', flush=True); time.sleep(60)"
"""A node that is admitted at once."""


class Fakes:
    """Makes parts that run some Python code, and supervisors of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = f"test-{os.getpid()}-{time.monotonic_ns()}"
        self.lines: list[str] = []

    def part(self, code: str = JOINS, name: str = "node-0", kind: str = NODE) -> Part:
        words = [sys.executable, "-c", code]
        return Part(name, kind, self.folder, self.folder / f"{name}.log", words=words)

    def supervisor(self, *parts: Part) -> Supervisor:
        return Supervisor(self.folder, parts, self.tag, self.lines.append)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Return parts that answer as soon as they run, and whose SuperLink is not called."""
    monkeypatch.setattr(llm_qfl.cli.deploy.supervisor, "answers", lambda *_: True)
    monkeypatch.setattr(Part, "obstacle", lambda _: "")
    return Fakes(tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_qfl.cli.deploy.supervisor, "RESTART_SECONDS", 0.2)
    monkeypatch.setattr(llm_qfl.cli.deploy.supervisor, "ADMIT_SECONDS", 1.0)
