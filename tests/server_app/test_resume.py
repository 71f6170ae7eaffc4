"""A run that is broken off and goes on ends as one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from bench.grid import InProcessGrid
from client_app.app import app
from client_app.memory import forget
from federation import flatten, parse_run, read_jsonl
from server_app.journal import RunJournal
from server_app.resume import take_up
from server_app.run import run
from tests.conftest import SMALL

TIMES = (
    "idle_share",
    "seconds",
    "busy_seconds",
    "idle_seconds",
    "train_seconds",
    "llm_seconds",
    "queue_seconds",
)
WORDS = ("run.rounds=4", "data.train_rows=90", "data.test_rows=40", "train.steps=2")


class Killed(BaseException):
    """The process ends here, without a word."""


class Breaking(RunJournal):
    """Ends the process before or after the n-th thing that is written down."""

    def __init__(self, folder: Path, at: int, *, after: bool = False) -> None:
        super().__init__(folder)
        self.left, self.after = at, after
        for name in ("event", "decision", "underway", "checkpoint", "model", "summary"):
            setattr(self, name, self._counted(getattr(self, name)))

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> None:
            self.left -= 1
            if self.left < 0 and not self.after:
                raise Killed
            write(*given)
            if self.left < 0:
                raise Killed

        return counted


def start(folder: Path, *given: str, journal: RunJournal | None = None, **grid: Any) -> Any:
    forget()
    settings, _ = parse_run([], [*SMALL, *WORDS, *given])
    journal = journal or RunJournal(folder)
    journal.begin(settings)
    nodes = InProcessGrid(app, flatten(settings), settings.run.clients, **grid)
    return run(nodes, settings, journal)


def go_on(folder: Path, *given: str, journal: RunJournal | None = None, **grid: Any) -> Any:
    forget()
    settings, _ = parse_run([], [*SMALL, *WORDS, *given, "run.resume=true", f"run.folder={folder}"])
    past = take_up(folder, settings)
    journal = journal or RunJournal(folder)
    journal.again(settings, past.number)
    nodes = InProcessGrid(app, flatten(settings), settings.run.clients, **grid)
    return run(nodes, settings, journal, past=past)


def timeless(value: Any) -> Any:
    """Leave out what a clock says, and what going on itself cost."""
    if isinstance(value, dict):
        left_out = (*TIMES, "seconds_per_step", "repeated", "reused", "llm_reused")
        return {k: timeless(v) for k, v in value.items() if k not in left_out}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def outcome(folder: Path, summary: Any) -> dict[str, Any]:
    """Everything of a run that must not depend on its having been broken off."""
    rounds = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] in ("round", "client")]
    return {
        "summary": timeless(summary),
        "ledger": timeless(json.loads((folder / "ledger.json").read_text())),
        "decisions": timeless(list(read_jsonl(folder / "agent.jsonl"))),
        "rounds": timeless(rounds),
    }


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Say where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for k in one for d in differences(one[k], other[k], f"{at}.{k}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for k, (a, b) in pairs for d in differences(a, b, f"{at}[{k}]")]
    return [] if one == other else [f"{at}: {one} instead of {other}"]


def same_model(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


AGENTS = (
    ("agent.kind=rule", "agent.fraction=0.7"),
    ("agent.kind=bandit", "agent.bandit=ucb", "agent.price=0", "agent.idle_price=0"),
    (
        "agent.kind=random",
        "evaluation.mode=federated",
        "evaluation.keep=last",
        "data.server_rows=0",
    ),
)


@pytest.mark.parametrize("given", AGENTS)
def test_broken_off_anywhere_it_ends_with_the_same_numbers(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    start(tmp_path / "first", *given, "run.rounds=1")  # who fine-tunes is not the question here
    whole = start(tmp_path / "whole", *given)
    wanted = outcome(tmp_path / "whole", whole)
    for at in (3, 8, 14, 19):
        folder = tmp_path / f"broken-{at}"
        with pytest.raises(Killed):
            start(folder, *given, journal=Breaking(folder, at, after=at % 2 == 0))
        found = outcome(folder, go_on(folder, *given))
        for part in wanted:
            assert differences(found[part], wanted[part]) == []
        assert same_model(folder, tmp_path / "whole")
