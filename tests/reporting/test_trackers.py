"""Trackers, each with its own package: what it stores of a run; and that none can fail a run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from core import SettingsError, parse_run
from core.extras import check_extras, tracker_names
from core.registry import modules_of
from reporting.trackers import Trackers, numbers, tracked

ROUNDS: list[dict[str, Any]] = [
    {"event": "client", "round": 1, "client": 0, "loss": 0.9, "dropped": "", "aggregated": True},
    {"event": "round", "round": 1, "loss": 0.8, "accuracy": 0.5, "reason": "all"},
    {"event": "round", "round": 2, "loss": 0.7, "accuracy": float("nan"), "reason": "all"},
    {"event": "end", "rounds": 2},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a results folder of a run that is over but for its events."""
    place = tmp_path / "runs" / "one"
    place.mkdir(parents=True)
    test = {"accuracy": 0.75, "rows": 40, "confusion": [[1]]}
    summary = {"status": "completed", "test": test, "baselines": {"linear": {"accuracy": 0.5}}}
    (place / "config.json").write_text('{"started": "2026-01-01"}')
    (place / "summary.json").write_text(json.dumps(summary))
    (place / "report.html").write_text("<p>report</p>")
    return place


def track(folder: Path, name: str, events: list[dict[str, Any]] = ROUNDS) -> None:
    settings, _ = parse_run([], [f"run.track={name}", "run.name=one"])
    with tracked(settings, folder) as listener:
        for event in events:
            listener(event)


def test_numbers_of_an_event_are_those_that_are_finite() -> None:
    assert numbers("client-0", ROUNDS[0]) == {"client-0/loss": 0.9}
    assert numbers("run", ROUNDS[2]) == {"run/loss": 0.7}


def test_tensorboard_has_scalars_and_settings(folder: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(folder, "tensorboard")
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    points = [(scalar.step, scalar.value) for scalar in found.Scalars("run/loss")]
    assert points == [(1, pytest.approx(0.8)), (2, pytest.approx(0.7))]
    assert [s.step for s in found.Scalars("client-0/loss")] == [1]
    assert found.Scalars("test/accuracy")[0].value == 0.75
    assert {"settings/text_summary", "files/text_summary"} <= set(found.Tags()["tensors"])


def test_mlflow_s_file_store_has_metrics_settings_and_the_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track(folder, "mlflow", ROUNDS[:2])
    track(folder, "mlflow", ROUNDS[2:])  # a resumed run goes on with its own
    client = mlflow.MlflowClient(tracking_uri=(folder.parent / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'llm-qfl'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.params["run.track"] == "mlflow"
    history = client.get_metric_history(run.info.run_id, "run/loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.8), (2, 0.7)]
    assert run.data.metrics["client-0/loss"] == 0.9
    assert run.data.metrics["test-linear/accuracy"] == 0.5
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert names == {"report.html", "config.json", "summary.json"}


def test_wandb_offline_has_metrics_and_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(folder))
    track(folder, "wandb")
    (stored,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    raw = stored.read_bytes()
    for text in (b"run/loss", b"client-0/loss", b"test/accuracy", b"run.track", b"report.html"):
        assert text in raw


class Broken:
    """A tracker that fails at its second round, as one whose server is away."""

    def __init__(self, name: str, key: str, folder: Path, settings: object) -> None:
        self.steps: list[int] = []

    def log(self, step: int, figures: object) -> None:
        self.steps.append(step)
        if step == 2:
            raise ConnectionError("no route\nto host")

    def close(self, figures: object, files: list[Path], *, completed: bool) -> None:
        raise AssertionError("closed though it was given up")


def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reporting.trackers.tensorboard.Tracker", Broken)
    track(folder, "tensorboard", [*ROUNDS, {"event": "round", "round": 3, "loss": 1.0}])
    (line,) = caplog.messages
    assert line == "the run goes on without tensorboard: ConnectionError: no route to host"


def test_a_tracker_that_cannot_begin_is_one_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reporting.trackers.wandb.Tracker", None)
    track(folder, "wandb")
    assert len(caplog.messages) == 1
    assert "the run goes on without wandb" in caplog.text


@pytest.mark.parametrize("name", modules_of("reporting.trackers"))
def test_a_missing_package_is_one_line_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = parse_run([], [f"run.track={name}"])
    monkeypatch.setattr("core.extras.find_spec", lambda module: None)
    expected = re.escape(f"pip install 'llm-qfl[{name}]'")
    with pytest.raises(SettingsError, match=expected):
        check_extras(settings)


def test_several_trackers_and_none_that_there_is_not() -> None:
    settings, _ = parse_run([], ['run.track=["mlflow", "tensorboard", "mlflow"]'])
    assert tracker_names(settings) == ("mlflow", "tensorboard")
    wrong, _ = parse_run([], ["run.track=mlflow,comet"])
    with pytest.raises(SettingsError, match=r"a list of mlflow, tensorboard, wandb; .*'comet'"):
        tracker_names(wrong)


def test_without_trackers_nothing_is_opened(folder: Path) -> None:
    before = sorted(os.listdir(folder))
    settings, _ = parse_run([], [])
    Trackers(settings, folder).close()
    assert sorted(os.listdir(folder)) == before
