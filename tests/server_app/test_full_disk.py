"""A run whose disk is full says so in one sentence, and goes on when there is room."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bench.grid import InProcessGrid
from client_app.app import app
from client_app.site import forget
from core import UserError, flatten, parse_run, read_json
from server_app.app import drive
from strategies.journal import RunJournal
from tests.conftest import SMALL


def go(folder: Path, *given: str) -> None:
    forget()
    settings, _ = parse_run([], [*SMALL, f"run.folder={folder}", *given])
    drive(InProcessGrid(app, flatten(settings), settings.run.clients), settings, folder)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path / "first", "run.rounds=1")  # who fine-tunes is not the question here
    go(tmp_path / "whole")
    folder, event = tmp_path / "run", RunJournal.event

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def until_round_2(journal: RunJournal, what: dict[str, Any]) -> None:
        if what.get("round") == 2 or what["event"] == "end":
            full()
        event(journal, what)

    with monkeypatch.context() as disk:
        disk.setattr(RunJournal, "event", until_round_2)
        disk.setattr(RunJournal, "summary", full)
        with pytest.raises(UserError, match=r"No space left.*make room, then .*--resume"):
            go(folder)
    go(folder, "run.resume=true")
    found, whole = (read_json(tmp_path / name / "summary.json") for name in ("run", "whole"))
    assert found["status"] == "completed"
    assert found["test"] == whole["test"]
