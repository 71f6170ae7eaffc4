"""`llm_qfl.run` in this process: callbacks, errors, what it leaves."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import llm_qfl
from core import read_jsonl

SMALL: dict[str, Any] = {
    "clients": 2,
    "rounds": 2,
    "report": False,
    "data": {"train_rows": 80, "test_rows": 40, "server_rows": 40},
    "train": {"steps": 3},
}
QUICK: dict[str, Any] = SMALL | {"distill": {"weight": 0.0}, "agent": "all"}
"""No site fine-tunes a language model."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(folder: Path) -> list[tuple[Any, ...]]:
    events = [e for e in read_jsonl(folder / "metrics.jsonl") if e["event"] in ("client", "round")]
    kept = ("event", "round", "client", "loss", "accuracy", "llm_loss", "circuits", "steps")
    return [tuple(str(event.get(key)) for key in kept) for event in events]


class Watcher:
    def __init__(self, stop_after: int = 9) -> None:
        self.stop_after, self.seen = stop_after, list[Any]()

    def on_prepared(self, prepared: Mapping[str, Any]) -> None:
        self.seen.append(("prepared", len(prepared["clients"])))

    def on_round(self, figures: Mapping[str, Any]) -> str | None:
        self.seen.append((figures["round"], [one["client"] for one in figures["clients"]]))
        return "enough seen" if figures["round"] == self.stop_after else None

    def on_end(self, result: llm_qfl.Result) -> None:
        self.seen.append((result.status, len(result.rounds)))


def test_callbacks_see_all_and_may_end_the_run() -> None:
    watcher, rounds = Watcher(), list[int]()
    result = llm_qfl.run(**QUICK, callbacks=[watcher, lambda f: rounds.append(f["round"])])
    expected = [("prepared", 2), (1, [0, 1]), (2, [0, 1]), ("completed", 2)]
    assert watcher.seen == expected
    assert rounds == [1, 2]
    assert result.status == "completed"
    stopped = llm_qfl.run(**QUICK, callbacks=Watcher(stop_after=1))
    assert stopped.summary["stop_reason"] == "enough seen"
    assert stopped.summary["test"]["rows"] == 40
    assert list(stopped.rounds["round"]) == [1]
    ended = llm_qfl.run(**QUICK, callbacks=lambda figures: True)
    assert ended.summary["stop_reason"] == "a callback ended it"


def test_a_callback_that_raises_is_one_line_and_the_run_goes_on_later() -> None:
    class Bad:
        def on_round(self, figures: Any) -> None:
            raise KeyError("no such figure")

    whole = llm_qfl.run(**QUICK)
    with pytest.raises(llm_qfl.UserError) as error:
        llm_qfl.run(**QUICK, callbacks=Bad())
    text = str(error.value)
    assert "Bad.on_round raised KeyError: 'no such figure' (test_python_runs.py, line" in text
    assert "\n" not in text
    folder = Path("runs/latest").resolve()
    assert f"llm_qfl.run(resume={str(folder)!r})" in text
    assert llm_qfl.read(folder).status == "failed"
    watcher = Watcher()
    on = llm_qfl.run(resume=folder, callbacks=watcher, quiet=True)
    assert watcher.seen[0] == ("prepared", 2)
    assert on.status == "completed"
    assert losses(on.folder) == losses(whole.folder)
    with pytest.raises(llm_qfl.UserError, match="is completed, and its test rows have been used"):
        llm_qfl.run(resume=folder)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"callbacks": 3}, "callbacks = 3; accepted: objects with on_prepared, on_round, on_end"),
        ({"runtime": "ray"}, "runtime = 'ray'; accepted: 'process' or 'flower'"),
        ({"data": {"source": "csv", "path": "no.csv"}}, "no.csv"),
        ({"quantum": {"backend": "nowhere"}}, "quantum.backend = 'nowhere'"),
        ({"resume": "nowhere"}, "no folder '.*nowhere'"),
        ({"on": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_are_exceptions_of_one_line_and_leave_nothing(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(llm_qfl.UserError, match=message) as error:
        llm_qfl.run(**given)
    assert "\n" not in str(error.value)
    assert not Path("runs").exists()


def test_what_cannot_change_when_a_run_goes_on() -> None:
    with pytest.raises(llm_qfl.SettingsError, match=r"train.steps of a run that goes on"):
        llm_qfl.run(resume="runs/latest", train={"steps": 3})
    with pytest.raises(llm_qfl.SettingsError, match="config with resume"):
        llm_qfl.run("demo", resume="runs/latest")


def test_a_failed_run_is_an_exception_and_its_folder_can_be_read() -> None:
    with pytest.raises(llm_qfl.UserError, match="first round") as error:
        llm_qfl.run(**QUICK, stop={"circuits": 1})
    found = llm_qfl.read("runs/latest")
    assert (found.status, found.error) == ("failed", str(error.value))
    assert len(found.rounds) == 0
    assert found.confusion.empty
    assert "failed" in repr(found)
    assert str(error.value).split(";")[0] in found._repr_html_()


def test_ctrl_c_leaves_a_run_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(figures: Any) -> None:
        raise KeyboardInterrupt

    watcher = Watcher()
    with pytest.raises(KeyboardInterrupt):
        llm_qfl.run(**QUICK, callbacks=[watcher, interrupt])
    folder = Path("runs/latest").resolve()
    assert (
        f"interrupted; go on with: llm_qfl.run(resume={str(folder)!r})" in capsys.readouterr().err
    )
    assert watcher.seen[-1] == ("interrupted", 1)
    assert "llm_qfl.run(resume=" in repr(llm_qfl.read(folder))
    assert llm_qfl.run(resume=folder).status == "completed"


def test_nothing_of_a_run_stays_in_the_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from client_app.site import _sites
    from core.flower_compat import flower_logger

    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        levels = [handler.level for handler in flower_logger().handlers]
        during: list[Any] = []
        llm_qfl.run(**QUICK, callbacks=lambda f: during.append(torch.get_num_threads()))
        assert during == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(_sites) == 0
    assert not _sites.all_here
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["MKL_NUM_THREADS"] == "7"
    assert [handler.level for handler in flower_logger().handlers] == levels
    assert flower_logger().level == logging.INFO
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""
    log = Path("runs/latest/logs/run.log").read_text()
    assert "INFO: round 2: validation loss" in log


def test_runs_one_after_the_other_give_the_same_and_so_in_a_thread_with_an_event_loop() -> None:
    import asyncio

    first = losses(llm_qfl.run(**QUICK).folder)
    found: list[Any] = []

    async def cell() -> None:  # as in a notebook: a loop runs in the thread
        found.append(losses(llm_qfl.run(**QUICK).folder))

    thread = threading.Thread(target=lambda: asyncio.run(cell()))
    thread.start()
    thread.join()
    assert found == [first]


def test_a_second_run_at_the_same_time_is_refused() -> None:
    def again(figures: Any) -> None:
        with pytest.raises(llm_qfl.UserError, match="a run while another one goes on in this"):
            llm_qfl.run(**QUICK)

    assert llm_qfl.run(**QUICK, callbacks=again).status == "completed"


def test_lines_of_progress_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    llm_qfl.run(**QUICK, name="shown", quiet=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shown: round 0 of 2; preparing"
    assert lines[2].startswith("shown: round 1 of 2; loss 0.")
    assert lines[-1].startswith("shown: round 2 of 2; ended after")


@pytest.mark.parametrize("point", ["agent", "dataset", "aggregation", "model", "ansatz"])
def test_objects_stay_in_this_process(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_qfl import launched

    settings = llm_qfl.Settings()

    class Thing:
        pass

    from core.registry import POINTS
    from llm_qfl.configuration import extension_name

    name, section = extension_name(point, Thing()), POINTS[point].setting.partition(".")[0]
    part = getattr(settings, section).model_copy(
        update={POINTS[point].setting.partition(".")[2]: name}
    )
    with pytest.raises(llm_qfl.SettingsError, match="an object of this process, in other proc"):
        launched._refuse_objects(settings.model_copy(update={section: part}))


@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.slow
def test_flowers_simulation_gives_the_same_and_callbacks_see_it() -> None:
    watcher = Watcher()
    there = llm_qfl.run(**QUICK, runtime="flower", callbacks=watcher, quiet=True)
    assert watcher.seen == [("prepared", 2), (1, [0, 1]), (2, [0, 1]), ("completed", 2)]
    assert losses(there.folder) == losses(llm_qfl.run(**QUICK).folder)
