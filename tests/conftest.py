"""Every test runs offline, on one thread, with a site store of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"
# IBM's client tells IBM who called it: it walks the stack, 0.2 s a request under pytest.
os.environ["USAGE_DATA_OPT_OUT"] = "True"

# Nothing is timed: on a busy machine a slow example is no fault.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

SMALL = (
    "run.clients=3",
    "run.rounds=2",
    "data.train_rows=120",
    "data.test_rows=60",
    "data.server_rows=40",
    "llm.epochs=1",
    "train.steps=3",
    "train.class_weights=none",
    "stop.patience=0",
    "evaluation.keep=best",
    "run.report=false",
)
"""A federated run of about a second; rows are few, nothing is mocked. All its rounds run, and the
model is that of one of them: what changes that is tested where it is the question."""

NO_TEACHER = ("distill.weight=0", "agent.kind=all")
"""Settings in which nothing uses a language model, so that no site fine-tunes one."""


@pytest.fixture
def server() -> Iterator[Any]:
    """Serve as an OpenAI-compatible server that misbehaves as instructed."""
    from tests.llm.chat.server import serving

    with serving() as instructions:
        yield instructions


@pytest.fixture(autouse=True, scope="session")
def site_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    store = tmp_path_factory.mktemp("store")
    before = os.environ.get("LLM_QFL_HOME")
    os.environ["LLM_QFL_HOME"] = str(store)
    yield store
    if before is None:
        del os.environ["LLM_QFL_HOME"]
    else:
        os.environ["LLM_QFL_HOME"] = before


@pytest.fixture
def own_jobs(tmp_path: Path, site_store: Path) -> Path:
    """Return a store with no jobs yet; fine-tuned models and features are the session's."""
    store = tmp_path / "store"
    store.mkdir()
    for shared in ("teachers", "features"):
        (site_store / shared).mkdir(mode=0o700, exist_ok=True)
        (store / shared).symlink_to(site_store / shared, target_is_directory=True)
    return store


@pytest.fixture(autouse=True)
def flower_speaks() -> None:
    """Give Flower's logger its level back: benchmarks silence it for their whole process."""
    logging.getLogger("flwr").setLevel(logging.INFO)
    logging.disable(logging.NOTSET)


@dataclass
class Ran:
    """A finished in-process run."""

    summary: dict[str, Any]
    folder: Path
    grid: Any

    def events(self, kind: str) -> list[dict[str, Any]]:
        from core import read_jsonl

        return [e for e in read_jsonl(self.folder / "metrics.jsonl") if e["event"] == kind]

    def decisions(self) -> list[dict[str, Any]]:
        from core import read_jsonl

        return list(read_jsonl(self.folder / "agent.jsonl"))


Federate = Callable[..., Ran]
"""Runs a small federation with settings, and other arguments of `runner`'s."""


def runner(where: Path) -> Federate:
    """Return a function that runs a small federation in this process, in folders of its own."""
    from bench.grid import InProcessGrid
    from client_app.app import app
    from client_app.site import forget
    from core import flatten, parse_run
    from server_app.run import run
    from strategies.journal import RunJournal

    def go(
        *given: str,
        spoil: Any = None,
        nodes: int | None = None,
        client_app: Any = app,
        agent: Any = None,
        **more: Any,
    ) -> Ran:
        forget()
        settings, _ = parse_run([], [*SMALL, *given])
        folder = where / f"run-{len(list(where.iterdir()))}"
        options = {} if spoil is None else {"spoil": spoil}
        grid = InProcessGrid(
            client_app, flatten(settings), nodes or settings.run.clients, **options, **more
        )
        journal = RunJournal(folder)
        journal.begin(settings)
        return Ran(run(grid, settings, journal, agent=agent), folder, grid)

    return go


@pytest.fixture
def federate(tmp_path: Path) -> Federate:
    return runner(tmp_path)


@pytest.fixture(scope="module")
def federate_once(tmp_path_factory: pytest.TempPathFactory) -> Federate:
    """Return the same for runs that several tests of a module look at."""
    return runner(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Return a run with no more settings than `SMALL`; nobody changes its folder."""
    return runner(tmp_path_factory.mktemp("small"))()
