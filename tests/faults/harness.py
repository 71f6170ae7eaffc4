"""A real deployment, a run on it, and the means to break them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file

from core import read_json, read_jsonl
from llm_qfl.cli.processes import alive, members
from tests.command import ROOT, llm_qfl, sets

WORDS = (
    "run.rounds=4",
    "data.train_rows=160",
    "data.test_rows=100",
    "data.server_rows=60",
    "llm.epochs=1",
    "train.steps=400",
    "train.max_steps=400",
    "agent.kind=all",
    "run.wait_seconds=120",
    "run.report=false",
)
"""A round lasts some seconds, so that a kill meets it in the middle."""

PATIENCE = 240.0
"""Longest wait for anything, seconds."""


def wait_until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> float:
    """Wait until something is so; return the seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < patience, f"waited {patience:.0f} s for {what}"
        time.sleep(0.1)
    return time.monotonic() - began


@dataclass
class Run:
    """A run that the launcher follows, in a process of its own."""

    process: subprocess.Popen[str]
    home: Path
    before: frozenset[Path]
    resumed: Path | None = None

    @property
    def folder(self) -> Path:
        """Its results folder, once it is there."""
        if self.resumed is not None:
            return self.resumed
        wait_until(lambda: set(self.home.glob("runs/2*")) - self.before, "a run")
        return next(folder for folder in self.home.glob("runs/2*") if folder not in self.before)

    def events(self, kind: str) -> list[dict[str, Any]]:
        events = read_jsonl(self.folder / "metrics.jsonl")
        return [event for event in events if event["event"] == kind]

    def in_round(self, number: int) -> None:
        """Wait until a round is under way: it is decided, and its orders are being worked on."""
        wait_until(
            lambda: any(d["round"] == number for d in read_jsonl(self.folder / "agent.jsonl")),
            f"round {number}",
        )

    def end(self, patience: float = PATIENCE) -> tuple[int, str]:
        """Wait for its end; return exit code and everything that it printed."""
        said, _ = self.process.communicate(timeout=patience)
        return self.process.returncode, said


def start(home: Path, *words: str, resumed: Path | None = None) -> Run:
    """Start `llm-qfl run` with words."""
    before = frozenset(home.glob("runs/2*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_qfl.cli", "run", *words],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LLM_QFL_HOME": str(home / "store")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Run(process, home, before, resumed)


@dataclass
class Begun:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(errors="replace")

    def end(self, patience: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(patience)


def begin(home: Path, *words: str, **environment: str) -> Begun:
    """Start the command in a folder; its memory is there too."""
    log = home / f"{words[0]}-{time.monotonic_ns()}.txt"
    own = {"PYTHONPATH": str(ROOT), "LLM_QFL_HOME": str(home / "store")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_qfl.cli", *words],
            cwd=home,
            env={**os.environ, **own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return Begun(process, log)


@dataclass
class Deployment:
    """A SuperLink and nodes over TLS."""

    home: Path
    name: str = "fed"
    told: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.home / self.name

    @property
    def state(self) -> dict[str, Any]:
        return read_json(self.folder / "state.json")

    def part(self, name: str) -> dict[str, Any]:
        server = name.removesuffix("-exec")
        kind = "exec" if name != server else server.partition("-")[0]
        return read_json(self.folder / server / "home" / f"{kind}.json")

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def status(self) -> subprocess.CompletedProcess[str]:
        return llm_qfl(self.home, "deploy", "status", self.name)

    def well(self) -> bool:
        return self.status().returncode == 0

    def run(self, *given: str) -> Run:
        return start(self.home, "--on", self.name, *sets(*WORDS, *given))

    def resume(self, folder: Path, *given: str) -> Run:
        words = ("--on", self.name, "--resume", str(folder), *sets(*given))
        return start(self.home, *words, resumed=folder)


@contextlib.contextmanager
def deployed(home: Path, nodes: int = 3, name: str = "fed", *words: str) -> Iterator[Deployment]:
    """Bring a deployment up, and end all of it whatever happens."""
    up = llm_qfl(home, "deploy", "up", name, "--nodes", str(nodes), "--detach", *words)
    assert up.returncode == 0, up.stdout + up.stderr
    made = Deployment(home, name)
    tag = made.state["tag"]
    try:
        yield made
    finally:
        llm_qfl(home, "deploy", "stop", name)
        for pid in tagged(tag):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def tagged(tag: str) -> list[int]:
    """Return the processes of a deployment."""
    return [process.pid for process in members(tag)]


def children(pid: int, named: str) -> list[int]:
    """Return the living processes below one whose name or command line holds a word."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if alive(process) and re.search(named, " ".join([process.name(), *process.cmdline()])):
                found.append(process.pid)
    return found


def comparable(folder: Path) -> dict[str, Any]:
    """Everything of a run that neither a clock nor a fault may change."""
    summary = read_json(folder / "summary.json")
    ledger = read_json(folder / "ledger.json")
    return {
        "test": summary["test"],
        "validation": summary["validation"],
        "losses": [
            e["loss"] for e in read_jsonl(folder / "metrics.jsonl") if e["event"] == "round"
        ],
        "circuits": [(e["round"], e["client"], e["circuits"]) for e in ledger["entries"]],
    }


def same_model(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def note(fault: str, **figures: object) -> None:
    """Add a line to the file that docs/reliability.md's figures come from, if one is named."""
    if path := os.environ.get("LLM_QFL_FAULTS"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"fault": fault, **figures}) + "\n")
