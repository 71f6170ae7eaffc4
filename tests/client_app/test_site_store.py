"""What a site stores of a run for its later messages: right, or not used at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from client_app.site import forget
from client_app.site_store import MOST_RUNS, StoredSite, read_site, write_site
from core.messages import EVALUATE, TRAIN
from llm import Teacher
from tests.conftest import Federate, Ran


def stored(rows: int = 5, width: int = 3) -> StoredSite:
    rng = np.random.default_rng(rows)
    logits = rng.normal(size=(rows, 2)).astype(np.float32)
    teacher = Teacher(logits, logits[:1], 1.5, logits, logits[:1], {"loss": 0.5, "reused": False})
    labels = {name: rng.integers(0, 2, rows) for name in ("train", "validation", "test")}
    features = {"train": rng.normal(size=(rows, width)).astype(np.float32)}
    return StoredSite("7/0", "a1", 2, labels, features, teacher)


@given(st.integers(0, 9), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_what_is_stored_comes_back(tmp_path_factory: Any, rows: int, width: int) -> None:
    store, whole = tmp_path_factory.mktemp("store"), stored(rows, width)
    found = read_site(store, 0, "7/0", "a1", write_site(store, 0, whole))
    assert found is not None
    for name in ("run", "adapter", "classes"):
        assert getattr(found, name) == getattr(whole, name)
    for mine, theirs in ((whole.labels, found.labels), (whole.features, found.features)):
        assert list(mine) == list(theirs)
        assert all(np.array_equal(mine[split], theirs[split]) for split in mine)
    assert found.teacher.metrics == whole.teacher.metrics
    assert found.teacher.temperature == whole.teacher.temperature
    assert np.array_equal(found.teacher.soft_labels, whole.teacher.soft_labels)
    assert found.teacher.hidden.shape == (0, 0)


def test_of_each_client_the_latest_runs_stay(tmp_path: Path) -> None:
    runs = [(f"{run}/{client}", client) for run in range(6) for client in (1, 11)]
    digests = {}
    for age, (run, client) in enumerate(runs):
        digests[run] = write_site(tmp_path, client, replace(stored(), run=run))
        for path in (tmp_path / "rounds").glob("client-*"):
            if path.stat().st_mtime > len(runs):
                os.utime(path, (age, age))
    found = [run for run, client in runs if read_site(tmp_path, client, run, "a1", digests[run])]
    assert found == [run for run, _ in runs[-2 * MOST_RUNS :]]


@pytest.mark.parametrize(("run", "adapter"), [("8/0", "a1"), ("7/0", "a2"), ("7/0", "")])
def test_of_another_run_or_adapter_it_is_not_used(tmp_path: Path, run: str, adapter: str) -> None:
    digest = write_site(tmp_path, 0, stored())
    assert read_site(tmp_path, 0, run, adapter, digest) is None
    assert read_site(tmp_path, 1, "7/0", "a1", digest) is None
    write_site(tmp_path, 0, replace(stored(), classes=3))
    assert read_site(tmp_path, 0, "7/0", "a1", digest) is None  # another one since


class Watched:
    """A federation whose every message meets a new process; counts how often rows are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self.reads: list[int] = []
        self.before_train: Callable[[], object] = lambda: None
        real = data.load_site

        def load(*given: Any) -> Any:
            self.reads[-1] += 1
            return real(*given)

        monkeypatch.setattr(data, "load_site", load)

    def __call__(self, app: Any) -> Callable[..., Any]:
        def answer(message: Any, context: Any) -> Any:
            forget()
            if message.metadata.message_type == TRAIN:
                self.before_train()
            self.seen.append(message.metadata.message_type)
            self.reads.append(0)
            return app(message, context)

        return answer

    def of(self, kind: str) -> list[int]:
        """Return how often each message of a kind read the site's rows."""
        return [n for seen, n in zip(self.seen, self.reads, strict=True) if seen == kind]


def figures(ran: Ran) -> list[tuple[Any, ...]]:
    keys = ("round", "client", "loss", "train_loss", "llm_loss", "llm_tokens", "circuits")
    return [tuple(event[key] for key in keys) for event in ran.events("client")]


@pytest.fixture
def heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[str], list[str]]:
    """Return a function that gives the lines of the log that hold some words."""
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    return lambda words: [line for line in caplog.messages if words in line]


MORE = (
    "run.rounds=3",
    "agent.kind=all",
    "evaluation.mode=federated",
    "data.server_rows=0",
    "data.train_rows=60",
)


SHARED = ("llm.federated=ffa", "llm.rounds=1", "features.kind=embedding", "features.encoder=shared")


@pytest.mark.parametrize("given", [(), SHARED], ids=["own", "shared adapter"])
def test_later_messages_read_no_rows_and_give_the_same_numbers(
    given: tuple[str, ...],
    federate: Federate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from client_app.app import app

    one = federate(*MORE, *given, f"llm.store={tmp_path / 'one'}")
    watched = Watched(monkeypatch)
    two = federate(*MORE, *given, f"llm.store={tmp_path / 'two'}", client_app=watched(app))
    assert watched.of(TRAIN) == [1] * 3 + [0] * 6
    assert set(watched.of(EVALUATE)[:-3]) == {0}
    assert figures(one) == figures(two)
    assert one.summary["test"] == two.summary["test"]


def test_without_the_file_the_site_heals_itself(
    federate: Federate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from client_app.app import app

    store = tmp_path / "store"
    one = federate(*MORE, f"llm.store={tmp_path / 'one'}")
    watched = Watched(monkeypatch)

    def wipe() -> None:
        if len(watched.of(TRAIN)) == 4:  # the second round's second message
            (path,) = (store / "rounds").glob("client-1-*/site.npz")
            path.write_bytes(b"rubbish")

    watched.before_train = wipe
    two = federate(*MORE, f"llm.store={store}", client_app=watched(app))
    assert watched.of(TRAIN) == [1, 1, 1, 0, 1, 0, 0, 0, 0]  # read once more, stored once more
    assert figures(one) == figures(two)


def test_where_it_cannot_be_stored_the_run_goes_on(
    federate: Federate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    heard: Callable[[str], list[str]],
) -> None:
    from client_app.app import app

    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "rounds").write_text("in the way")
    watched = Watched(monkeypatch)
    ran = federate(*MORE, f"llm.store={tmp_path / 'store'}", client_app=watched(app))
    assert watched.of(TRAIN) == [1] * 9
    assert ran.summary["rounds"] == 3
    assert len(heard("are not stored for later messages")) == 9


@pytest.mark.parametrize("kept_file", ["there", "gone"])
def test_rows_that_change_in_a_run_are_refused(
    kept_file: str,
    federate: Federate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    heard: Callable[[str], list[str]],
) -> None:
    """The final test reads rows again; only a text has changed, no label and no number of rows."""
    from client_app.app import app

    watched = Watched(monkeypatch)
    read = data.load_site

    def changed(*given: Any) -> Any:
        info, site = read(*given)
        if len(watched.of(TRAIN)) == 9 and given[1] == 1:
            texts = ("ACGT" * 20, *site.test.texts[1:])
            site = replace(site, test=replace(site.test, texts=texts))
        return info, site

    def wiping(message: Any, context: Any) -> Any:
        if kept_file == "gone" and len(watched.of(TRAIN)) == 9:
            shutil.rmtree(tmp_path / "store" / "rounds", ignore_errors=True)
        return app(message, context)

    monkeypatch.setattr(data, "load_site", changed)
    federate(*MORE, f"llm.store={tmp_path / 'store'}", client_app=watched(wiping))
    lines = heard("rows that changed while the run")
    assert any(line.startswith("round 4, client 1: ") for line in lines)


def test_a_new_run_takes_nothing_of_the_last(
    federate: Federate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from client_app.app import app

    given = (*MORE, f"llm.store={tmp_path / 'store'}")
    federate(*given)
    watched = Watched(monkeypatch)
    federate(*given, client_app=watched(app))
    assert watched.of(TRAIN) == [1] * 3 + [0] * 6
