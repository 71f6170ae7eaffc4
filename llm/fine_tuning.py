"""Fit a site's local model once, and turn it into a calibrated teacher."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core import DataError, LlmSettings, Settings
from llm import calibration
from llm.batches import drawn_rows
from llm.checked import CheckedModel, build_model
from llm.protocol import Kind, ModelContext, Progress, silent
from llm.teacher import Entry, Teacher, content_key, no_rows, read_entry, write_entry

if TYPE_CHECKING:
    from llm.shared_adapter import FrozenAdapter


@dataclass(frozen=True)
class Task:
    """A site's rows and all else that a fine-tuning depends on.

    Attributes
    ----------
    train_texts, val_texts : sequence of str
        Rows; there may be no validation rows.
    train_labels, val_labels : np.ndarray
        Integers, (rows,), in [0, classes).
    classes : int
        Classes of the whole federation; a site need not hold all of them.
    settings : LlmSettings
        Model, adapters, training. With ``peft = none`` the encoder's own weights train at a
        tenth of ``learning_rate``, which is meant for fresh adapters; the head at all of it.
    kind : {"text", "dna"}
        What the rows are.
    seed : int
        Of the fresh weights, dropout and the order of rows; no global generator is touched.
    calibrate : bool
        Whether to fit the temperature on the validation rows. The chosen epoch does not depend
        on it: epochs are compared by their loss at the best temperature.
    adapter : FrozenAdapter or None
        An adapter that the federation has trained: the teacher is that one, and nothing is
        fine-tuned here.
    extra_texts : sequence of str
        Rows that the model predicts and learns nothing from.
    hidden : bool
        Whether the training rows' hidden states are needed too.
    class_names : tuple of str
        The classes in the order of their numbers, for a model that reads them from a file.
    run : Settings or None
        All settings, for a user's model with ``from_settings``.

    Raises
    ------
    core.DataError
        If there is not one label a row, or one is no class.
    """

    train_texts: Sequence[str]
    train_labels: np.ndarray
    val_texts: Sequence[str]
    val_labels: np.ndarray
    classes: int
    settings: LlmSettings
    kind: Kind
    seed: int
    calibrate: bool = True
    adapter: FrozenAdapter | None = None
    extra_texts: Sequence[str] = ()
    hidden: bool = False
    class_names: tuple[str, ...] = ()
    run: Settings | None = None

    def __post_init__(self) -> None:
        for part in ("train", "val"):
            texts, labels = getattr(self, f"{part}_texts"), getattr(self, f"{part}_labels")
            object.__setattr__(self, f"{part}_labels", _checked(texts, labels, self.classes))

    def model(self, store: Path | None, progress: Progress = silent) -> CheckedModel:
        """Build the local model of this task; nothing is fitted yet."""
        context = ModelContext(
            self.settings.model,
            self.kind,
            self.class_names,
            self.settings,
            self.adapter,
            store,
            progress,
        )
        return build_model(context, self.run)

    def facts(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the result depends on besides the rows, with the model's; JSON values."""
        return {
            **model,
            "kind": self.kind,
            "classes": self.classes,
            "seed": self.seed,
            **(self.adapter.facts() if self.adapter else {}),
        }

    def key(self, facts: Mapping[str, Any]) -> str:
        """Return the content key of the result."""
        # The same weights under another name are the same model.
        facts = {name: value for name, value in facts.items() if name != "model"}
        if self.hidden:
            facts["hidden"] = True
        texts, labels = [self.train_texts, self.val_texts], [self.train_labels, self.val_labels]
        return content_key(texts, labels, facts)

    @property
    def extra(self) -> str:
        """A digest of the rows that the model only predicts; empty for none."""
        return content_key([self.extra_texts], [np.zeros(0)], {}) if self.extra_texts else ""


def _checked(texts: Sequence[str], labels: np.ndarray, classes: int) -> np.ndarray:
    """Return one label a row, int64, (rows,), each in [0, classes)."""
    numbers = np.asarray(labels, dtype=np.int64).reshape(-1)
    if len(numbers) != len(texts):
        given = f"{len(texts)} rows and {len(numbers)} labels"
        raise DataError(given, "one label a row", "check the data")
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= classes):
        given = f"labels from {numbers.min()} to {numbers.max()}"
        raise DataError(given, f"0 to {classes - 1}", "check the data")
    return numbers


def fine_tune(task: Task, store: Path | None = None, progress: Progress = silent) -> Teacher:
    """Fit the local model to a site's rows, or take what it said of them from the site's store.

    Parameters
    ----------
    task : Task
        Rows, settings and seed.
    store : Path or None
        The site's store; None stores nothing.
    progress : callable
        Gets lines of the run's own progress.

    Returns
    -------
    Teacher
        Its numbers are the same for the same arguments at a fixed number of threads.

    Raises
    ------
    core.DataError
        If there is no training row.
    core.UserError
        If the model is missing, corrupt or unsuitable, CUDA or 4 bits are required where they
        do not work, training diverges, or a model of the user's own raises or returns nonsense.
    """
    if not len(task.train_labels):
        raise DataError("no training row", "at least one", "give this site data")
    start = time.perf_counter()
    model = task.model(store, progress)
    facts = task.facts(model.facts(task.settings))
    key = task.key(facts)
    entry = read_entry(store, key) if store is not None and task.settings.reuse else None
    if entry and task.extra and task.extra != entry.facts.get("extra"):
        entry = None
    # The federation's own model was trained earlier in this run, whoever made its soft labels.
    reused = entry is not None and task.adapter is None
    if entry is None:
        entry = _stored(_fitted(task, model, facts, progress), model, key, store, progress)
    else:
        progress(f"{model.short}: taken from {entry.folder}, not fine-tuned again")
    teacher = _teacher(entry, task)
    teacher.metrics.update(reused=reused, seconds=time.perf_counter() - start)
    if reused:
        teacher.metrics["tokens"] = 0
    return teacher


def _fitted(task: Task, model: CheckedModel, facts: dict[str, Any], progress: Progress) -> Entry:
    """Fit the model to the rows that `llm.rows` draws, and return what it says of all rows."""
    drawn = drawn_rows(task.train_labels, task.settings.rows, task.seed)
    texts, labels = [task.train_texts[row] for row in drawn], task.train_labels[drawn]
    figures = model.fit(texts, labels, task.val_texts, task.val_labels, task.classes, task.seed)
    cut = model.cut(task.train_texts)
    if cut:
        words = f"{cut:,} of {len(task.train_texts):,} training texts are cut at llm.max_tokens"
        progress(f"{model.short}: {words}")
    logits, val_logits = (
        model.logits(rows, task.classes) for rows in (task.train_texts, task.val_texts)
    )
    extra = {}
    if task.extra_texts:
        extra["predicted"] = model.logits(task.extra_texts, task.classes)
    if task.hidden:
        extra["hidden"] = model.embed(task.train_texts)
    facts = {**facts, "cut": cut, "extra": task.extra, **figures}
    return Entry(logits, val_logits, facts, extra=extra)


def _stored(
    entry: Entry, model: CheckedModel, key: str, store: Path | None, progress: Progress
) -> Entry:
    """Store an entry and return it with its folder; without a store, as it is."""
    if store is None:
        return entry
    try:
        folder = write_entry(store, key, entry, model.save)
    except OSError as error:
        progress(f"{model.short}: the fine-tuned model is not stored ({error})")
        return entry
    return replace(entry, folder=folder)


def _teacher(entry: Entry, task: Task) -> Teacher:
    """Calibrate an entry's logits and score them."""
    held_out = bool(len(task.val_labels))
    fitted = task.calibrate and held_out
    temperature = calibration.soft_temperature(entry.val_logits, task.val_labels) if fitted else 1.0
    copied = ("epochs", "best_epoch", "tokens", "trainable", "adapter_bytes", "cut")
    metrics = {
        **calibration.figures(
            entry.val_logits if held_out else entry.train_logits,
            task.val_labels if held_out else task.train_labels,
            temperature,
        ),
        "validation_rows": len(task.val_labels),
        **{name: entry.facts[name] for name in copied},
        "peft": entry.facts["settings"]["peft"],  # "none" also for what is no transformer
    }
    predicted = entry.extra["predicted"] if task.extra else no_rows()
    calibrated = calibration.softmax(predicted, temperature) if len(predicted) else predicted
    return Teacher(
        soft_logits=entry.train_logits,
        val_logits=entry.val_logits,
        temperature=temperature,
        soft_labels=calibration.softmax(entry.train_logits, temperature).astype(np.float32),
        val_probabilities=calibration.softmax(entry.val_logits, temperature).astype(np.float32),
        metrics=metrics,
        folder=entry.folder,
        extra_logits=predicted,
        extra_soft_labels=calibrated.astype(np.float32),
        hidden=entry.extra.get("hidden", no_rows()),
    )
