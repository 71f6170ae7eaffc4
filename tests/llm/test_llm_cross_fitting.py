"""Cross-fitting: folds are a partition, and no model labels a row that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm
from core import DataError, LlmSettings, derive_seed
from llm import calibration, cross_fitting, fine_tuning
from llm.cross_fitting import stratified_folds
from tests.llm.conftest import Folders, Reviews, settings_for, task_of

Labels = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array)


@given(Labels, st.integers(2, 10), st.integers(0, 99))
def test_folds_are_a_balanced_partition(labels: np.ndarray, folds: int, seed: int) -> None:
    parts = stratified_folds(labels, folds, np.random.default_rng(seed))
    counts = np.bincount(labels)
    rows = np.flatnonzero(counts[labels] > 1)
    assert len(parts) == min(folds, len(rows))
    if not parts:
        return
    assert np.array_equal(np.sort(np.concatenate(parts)), rows)
    assert np.ptp([len(part) for part in parts]) <= 1
    everything = np.arange(len(labels))
    for part in parts:
        assert set(labels[np.setdiff1d(everything, part)]) == set(labels)
    for label in np.flatnonzero(counts > 1):
        assert np.ptp([(labels[part] == label).sum() for part in parts]) <= 1


def test_folds_follow_the_generator() -> None:
    labels = np.arange(30) % 2
    one, same, other = (stratified_folds(labels, 3, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(map(np.array_equal, one, same))
    assert not all(map(np.array_equal, one, other))


class Fake:
    """Stands in for `fine_tune`: logits say how often each extra row was trained on."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str], int]] = []

    def __call__(self, task: llm.Task, store: Path | None, progress: object) -> llm.Teacher:
        self.calls.append((list(task.train_texts), list(task.extra_texts), task.seed))
        number = len(self.calls)

        def logits(texts: Sequence[str]) -> np.ndarray:
            seen = [float(text in task.train_texts) for text in texts]
            names = [float(text) for text in texts]
            rows = [[number, *pair] for pair in zip(seen, names, strict=True)]
            return np.array(rows, dtype=np.float32).reshape(-1, 3)

        metrics = {"epochs": number, "best_epoch": 1, "tokens": 10 * number, "cut": 4,
                   "seconds": 0.5, "trainable": 7, "peft": "lora", "adapter_bytes": 28,
                   "reused": number != 2}  # fmt: skip
        empty = np.zeros((0, 3), np.float32)
        return llm.Teacher(
            logits(task.train_texts), logits(task.val_texts), 1.0, empty, empty, metrics, None,
            logits(task.extra_texts),
        )  # fmt: skip


def fit(
    labels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    folds: int,
    validation: int = 0,
    extra: Sequence[str] = (),
) -> tuple[llm.Teacher, Fake, list[str]]:
    fake, lines = Fake(), list[str]()
    monkeypatch.setattr(cross_fitting, "fine_tune", fake)
    texts = [str(row) for row in range(len(labels))]
    held_out = [str(row + 0.25) for row in range(validation)]
    rows = texts, labels, held_out, np.arange(validation) % 3
    task = llm.Task(*rows, 3, LlmSettings(), "text", 5, extra_texts=extra)
    return llm.cross_fit(task, folds, progress=lines.append), fake, lines


@settings(deadline=None)  # the first call imports SciPy
@given(Labels.map(lambda labels: labels % 3), st.integers(2, 6))
def test_each_label_comes_from_a_model_that_has_not_seen_the_row(
    labels: np.ndarray, folds: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        teacher, fake, _ = fit(labels, patch, folds)
    alone = np.bincount(labels)[labels] == 1
    if alone.all():
        assert [len(train) for train, _, _ in fake.calls] == [len(labels)]
        return
    model, seen, row = teacher.soft_logits.T
    assert np.array_equal(seen, alone)
    assert np.array_equal(row, np.arange(len(labels)))
    assert np.array_equal(np.unique(model[~alone]), np.arange(1, len(fake.calls) + 1))
    assert (model[alone] == np.mean(np.arange(1, len(fake.calls) + 1))).all()
    assert len({seed for _, _, seed in fake.calls}) == len(fake.calls)
    for train, extra, _ in fake.calls:
        assert not set(train) & set(extra)
        assert len(train) + len(extra) == len(labels)


def test_rows_without_labels_get_the_models_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of a row named n are (model, 0, n): no model has trained on it."""
    teacher, _, _ = fit(np.arange(12) % 3, monkeypatch, 2, validation=4, extra=["0.5", "2.5"])
    each = [np.array([[model, 0.0, 0.5], [model, 0.0, 2.5]]) for model in (1, 2)]
    mean = np.mean([np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in each], axis=0)
    np.testing.assert_allclose(np.exp(teacher.extra_logits), mean, rtol=1e-5)
    np.testing.assert_allclose(teacher.extra_soft_labels.sum(axis=1), 1, rtol=1e-5)
    assert teacher.soft_logits[:, 2].tolist() == list(range(12))


def test_figures_add_up_over_the_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, _, lines = fit(np.arange(12) % 3, monkeypatch, 3, validation=4)
    metrics = teacher.metrics
    assert (metrics["tokens"], metrics["seconds"], metrics["adapter_bytes"]) == (60, 1.5, 84)
    assert metrics["cut"] == 6  # three members of 4 cut rows, each row with two of them
    assert (metrics["epochs"], metrics["best_epoch"], metrics["trainable"]) == (3, 1, 7)
    assert (metrics["reused"], metrics["validation_rows"]) == (False, 4)
    assert lines == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]


def test_validation_rows_get_the_mean_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three models whose logits differ by one in the first class only."""
    teacher, _, _ = fit(np.arange(12) % 3, monkeypatch, 3, validation=2)
    odds = [np.exp([n, 0.0, 0.25]) for n in (1.0, 2.0, 3.0)]
    mean = np.mean([each / each.sum() for each in odds], axis=0)
    np.testing.assert_allclose(np.exp(teacher.val_logits[0]), mean, rtol=1e-5)
    tempered = calibration.fit_temperature(
        teacher.val_logits, np.arange(2), spread=calibration.SPREAD
    )
    expected = calibration.softmax(teacher.val_logits, tempered)
    np.testing.assert_allclose(teacher.val_probabilities, expected, atol=1e-6)


def test_temperature_is_that_of_the_held_out_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(12) % 3
    teacher, _, _ = fit(labels, monkeypatch, 3, validation=4)
    fitted = calibration.fit_temperature(teacher.soft_logits, labels, spread=calibration.SPREAD)
    assert teacher.temperature == pytest.approx(fitted, rel=1e-6)
    expected = calibration.softmax(teacher.soft_logits, teacher.temperature)
    np.testing.assert_allclose(teacher.soft_labels, expected, atol=1e-6)


def run(
    reviews: Reviews,
    folder: Path,
    store: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **changes: Any,
) -> llm.Teacher:
    texts, labels = reviews
    rows: dict[str, Any] = {"train_texts": texts[:24], "train_labels": labels[:24]}
    task = task_of(reviews, settings_for(folder), **{**rows, **changes})
    return llm.cross_fit(task, 3, store, progress)


def test_a_fold_is_an_ordinary_teacher_of_the_other_rows(
    model_folder: Folders, reviews: Reviews
) -> None:
    """Second method: fine-tune one fold's model by hand, and ask it through its own files."""
    texts, labels = reviews[0][:24], reviews[1][:24]
    teacher = run(reviews, model_folder("bert"))
    rng = np.random.default_rng(derive_seed(4, "folds"))
    part = stratified_folds(labels, 3, rng)[1]
    others = np.setdiff1d(np.arange(24), part)
    rows = [texts[row] for row in others], labels[others], reviews[0][32:], reviews[1][32:]
    alone = llm.fine_tune(
        llm.Task(
            *rows,
            2,
            settings_for(model_folder("bert")),
            "text",
            derive_seed(4, "fold", 2),
            extra_texts=[texts[row] for row in part],
        )
    )
    np.testing.assert_array_equal(teacher.soft_logits[part], alone.extra_logits)


def test_extra_rows_are_part_of_the_key(
    model_folder: Folders, reviews: Reviews, tmp_path: Path
) -> None:
    texts, labels = reviews
    settings = settings_for(model_folder("bert"))

    def predict(extra: list[str]) -> llm.Teacher:
        rows = texts[:8], labels[:8], texts[8:12], labels[8:12]
        task = llm.Task(*rows, 2, settings, "text", 0, extra_texts=extra)
        return llm.fine_tune(task, tmp_path)

    one, other = predict(texts[12:13]), predict(texts[13:15])
    assert (one.extra_logits.shape, other.extra_logits.shape) == ((1, 2), (2, 2))
    again = predict(texts[13:15])
    assert (other.metrics["reused"], again.metrics["reused"]) == (False, True)
    np.testing.assert_array_equal(again.extra_logits, other.extra_logits)


def test_finished_folds_survive_an_interruption(
    model_folder: Folders, reviews: Reviews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = model_folder("bert"), fine_tuning._fitted
    trained: list[int] = []

    def count(task: Any, *rest: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(len(task.train_texts))
        return real(task, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "_fitted", count)
        with pytest.raises(KeyboardInterrupt):
            run(reviews, folder, tmp_path)
        trained[:] = [0]
        first = run(reviews, folder, tmp_path)
        assert trained == [0, 16]  # only the third fold
        second = run(reviews, folder, tmp_path)
        assert trained == [0, 16]
    assert not first.metrics["reused"]
    assert second.metrics["reused"]
    assert second.metrics["tokens"] == 0 < first.metrics["tokens"]
    fresh = run(reviews, folder)
    for one in (first, second):
        np.testing.assert_array_equal(one.soft_labels, fresh.soft_labels)
        np.testing.assert_array_equal(one.val_probabilities, fresh.val_probabilities)
    others = [path for path in (tmp_path / "teachers").iterdir() if not path.name.startswith(".")]
    assert len(others) == 3


@pytest.mark.parametrize(
    "site",
    ["one class", "no validation", "one row", "two rows", "a lone row", "one validation row"],
)
def test_odd_sites_give_finite_figures(site: str, model_folder: Folders, reviews: Reviews) -> None:
    texts, labels = reviews
    lines: list[str] = []
    cases: dict[str, dict[str, Any]] = {
        "one class": {"train_labels": np.ones(24, int), "val_labels": np.ones(16, int)},
        "no validation": {"val_texts": [], "val_labels": []},
        "one row": {"train_texts": texts[:1], "train_labels": labels[:1]},
        "two rows": {"train_texts": texts[:2], "train_labels": [0, 0]},
        "a lone row": {"train_labels": [2, *labels[1:24]]},
        "one validation row": {"val_texts": texts[32:33], "val_labels": labels[32:33]},
    }
    given: dict[str, Any] = {"classes": 3, "progress": lines.append, **cases[site]}
    teacher = run(reviews, model_folder("bert"), **given)
    numbers = [value for value in teacher.metrics.values() if type(value) in (int, float)]
    assert np.isfinite(numbers).all()
    assert np.isfinite(teacher.soft_labels).all()
    rows = len(given.get("train_texts", texts[:24]))
    assert teacher.soft_labels.shape == (rows, 3)
    assert teacher.val_probabilities.shape == (teacher.metrics["validation_rows"], 3)
    words = {"one row": "one model labels its own rows", "two rows": "2 folds"}
    if site in words:
        assert f"{rows} training rows do not make 3 folds: {words[site]}" in lines


def test_wrong_rows_are_refused(model_folder: Folders, reviews: Reviews) -> None:
    with pytest.raises(DataError, match="24 rows and 3 labels"):
        run(reviews, model_folder("bert"), train_labels=np.zeros(3, int))
    with pytest.raises(DataError, match="no training row"):
        run(reviews, model_folder("bert"), train_texts=[], train_labels=[])
