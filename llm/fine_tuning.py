"""Fine-tune a local language model once, and turn it into a calibrated teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core import DataError, LlmSettings
from llm import adapters, calibration
from llm.batches import drawn_rows
from llm.device import choose_device, device_of, enough_memory, seeded
from llm.embedding import embed, pooled_states
from llm.feature_store import stored_embedding
from llm.frozen_adapter import Adopted
from llm.models import Model
from llm.pooled import PooledClassifier
from llm.quiet import quiet
from llm.shared import build_adopted
from llm.sources import Kind, Source, resolve
from llm.store import Entry, read_entry, write_entry
from llm.tasks import Progress, Task, checked_labels, plan_of, silent, tokens_of
from llm.teacher import Teacher, no_rows
from llm.training import Rows, Trained, predict, train


def _tell(name: str, progress: Progress, line: str) -> None:
    progress(f"{name}: {line}")


def fine_tune(
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    val_texts: Sequence[str],
    val_labels: np.ndarray,
    classes: int,
    settings: LlmSettings,
    kind: Kind,
    seed: int,
    calibrate: bool = True,
    store: Path | None = None,
    progress: Progress = silent,
    asked_texts: Sequence[str] = (),
    adopted: Adopted | None = None,
    hidden: bool = False,
) -> Teacher:
    """Fine-tune the local model on a site's rows, or take it from the site's store.

    Parameters
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
        Whether to fit the temperature on the validation rows. The kept epoch does not depend on
        it: epochs are judged by their loss at the best temperature.
    store : Path or None
        Folder of the site's memory; None keeps nothing.
    progress : callable
        Gets lines of the run's own progress.
    asked_texts : sequence of str
        Rows that the model is asked about and learns nothing from.
    adopted : Adopted or None
        An adapter that the federation has trained: the teacher is that one, and nothing is
        fine-tuned here.
    hidden : bool
        Whether the training rows' hidden states are wanted too.

    Returns
    -------
    Teacher
        Its numbers are the same for the same arguments at a fixed number of threads.

    Raises
    ------
    core.DataError
        If there is no training row, or labels do not fit.
    core.ModelError
        If the model is missing, corrupt or unsuitable, CUDA or 4 bits are asked for where they
        do not work, or training diverges.
    """
    train_rows = tuple(train_texts), checked_labels(train_texts, train_labels, classes)
    val_rows = tuple(val_texts), checked_labels(val_texts, val_labels, classes)
    task = Task(
        *train_rows,
        *val_rows,
        classes,
        settings,
        kind,
        seed,
        calibrate,
        adopted,
        asked_texts,
        hidden,
    )
    if not len(task.train_labels):
        raise DataError("no training row", "at least one", "give this site data")
    return _kept_or_new(task, store, progress)


def _kept_or_new(task: Task, store: Path | None, progress: Progress) -> Teacher:
    start = time.perf_counter()
    source = resolve(task.settings.model, task.kind)
    task = replace(task, settings=adapters.chosen(task.settings, source))
    key = task.key(source)
    entry = read_entry(store, key) if store is not None and task.settings.reuse else None
    # The federation's own model is trained before in this run, whoever made its soft labels.
    reused = entry is not None and task.adopted is None
    if entry is None:
        entry = _fine_tune(task, source, key, store, progress)
    else:
        progress(f"{source.short}: taken from {entry.folder}, not fine-tuned again")
    teacher = teacher_from(entry, task)
    teacher.metrics.update(reused=reused, seconds=time.perf_counter() - start)
    if reused:
        teacher.metrics["tokens"] = 0
    return teacher


def _fine_tune(
    task: Task, source: Source, key: str, store: Path | None, progress: Progress
) -> Entry:
    quiet()
    device = choose_device(task.settings.device)
    with enough_memory(source.name), seeded(task.seed, device):
        model, module, done = _adopted(task) if task.adopted else _trained(task, source, progress)
        tokens = tokens_of(model, task, task.train_texts)
        if tokens.cut:
            said = f"{tokens.cut:,} of {len(tokens):,} training texts are cut at llm.max_tokens"
            progress(f"{source.short}: {said}")
        if task.adopted and isinstance(model.module, PooledClassifier):
            logits, val_logits = _by_features(model.module, task, store, progress)
        else:
            logits = predict(module, tokens)
            val_logits = predict(module, tokens_of(model, task, task.val_texts))
        extra = _extra(module, model, task)
    trainable, _ = adapters.count(module)
    facts = {
        **task.facts(source),
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "tokens": done.tokens,
        "cut": tokens.cut,
        "trainable": trainable,
        "adapter_bytes": 4 * trainable,
    }
    entry = Entry(logits, val_logits.reshape(-1, task.classes), facts, extra=extra)
    if store is None:
        return entry
    try:
        folder = write_entry(store, key, entry, lambda path: adapters.save(module, path))
    except OSError as error:
        progress(f"{source.short}: the fine-tuned model is not kept ({error})")
        return entry
    return replace(entry, folder=folder)


def _trained(
    task: Task, source: Source, progress: Progress
) -> tuple[Model, torch.nn.Module, Trained]:
    settings, device = task.settings, choose_device(task.settings.device)
    model, module = adapters.build(source, task.classes, settings, device)
    trainable, total = adapters.count(module)
    drawn = drawn_rows(task.train_labels, settings.rows, task.seed)
    progress(
        f"{source.short}: training {trainable:,} of {total:,} parameters "
        f"({settings.peft} on {device.type}, {4 * trainable / 1e6:.2f} MB) on {len(drawn):,} rows"
    )
    texts = [task.train_texts[row] for row in drawn]
    rows = Rows(tokens_of(model, task, texts), task.train_labels[drawn])
    validation = Rows(tokens_of(model, task, task.val_texts), task.val_labels)
    told = partial(_tell, source.short, progress)
    return model, module, train(module, model.heads, rows, validation, plan_of(task), told)


def _adopted(task: Task) -> tuple[Model, torch.nn.Module, Trained]:
    """Return the federation's own model; it was trained before."""
    assert task.adopted is not None
    shared = build_adopted(task.settings, task.kind, task.adopted)
    return shared.model, shared.module, Trained(0, 0, 0)


def _by_features(
    module: PooledClassifier, task: Task, store: Path | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of training and validation rows from the features that the store keeps.

    The quantum model's features are mostly the same: one pass through the encoder serves both.
    """
    found = []
    for texts in (task.train_texts, task.val_texts):
        given = (texts, task.settings, task.kind)
        features = (
            embed(*given, progress, task.adopted)
            if store is None
            else stored_embedding(*given, store / "features", progress, task.adopted)
        )
        with torch.inference_mode():
            logits = module.classifier(torch.from_numpy(features).to(device_of(module)))
            found.append(logits.cpu().numpy())
    return found[0], found[1]


def _extra(module: torch.nn.Module, model: Model, task: Task) -> dict[str, np.ndarray]:
    """Return what this teacher alone is asked for."""
    extra = {}
    if task.asked_texts:
        extra["asked"] = predict(module, tokens_of(model, task, task.asked_texts))
    if task.hidden:
        tokens = tokens_of(model, task, task.train_texts)
        extra["hidden"] = pooled_states(model.encoder, tokens, model.hidden)
    return extra


def teacher_from(entry: Entry, task: Task) -> Teacher:
    """Calibrate an entry's logits and judge them."""
    held_out = bool(len(task.val_labels))
    temperature = 1.0
    if task.calibrate and held_out:
        temperature = calibration.fit_temperature(
            entry.val_logits, task.val_labels, spread=calibration.SPREAD
        )
    logits = entry.val_logits if held_out else entry.train_logits
    labels = task.val_labels if held_out else task.train_labels
    kept = ("epochs", "best_epoch", "tokens", "trainable", "adapter_bytes")
    metrics = {
        **calibration.figures(logits, labels, temperature),
        "validation_rows": len(task.val_labels),
        **{name: entry.facts[name] for name in kept},
        "cut": entry.facts.get("cut", 0),
        "peft": entry.facts["settings"]["peft"],
    }
    return Teacher(
        soft_logits=entry.train_logits,
        val_logits=entry.val_logits,
        temperature=temperature,
        soft_labels=calibration.softmax(entry.train_logits, temperature).astype(np.float32),
        val_probabilities=calibration.softmax(entry.val_logits, temperature).astype(np.float32),
        metrics=metrics,
        folder=entry.folder,
        asked_logits=entry.extra.get("asked", no_rows()),
        hidden=entry.extra.get("hidden", no_rows()),
    )


def load_fine_tuned(
    folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> Callable[[Sequence[str]], np.ndarray]:
    """Load a model that a site has kept.

    Parameters
    ----------
    folder : Path
        `Teacher.folder`.
    device : {"auto", "cpu", "cuda"}
        Where to compute, as `llm.device`.

    Returns
    -------
    callable
        From texts to raw logits, float32, (rows, C).

    Raises
    ------
    core.ModelError
        If its base model is not there any more, or the device is not.
    """
    import json

    facts = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["facts"]
    settings = LlmSettings(model=facts["model"], **facts["settings"])
    source = resolve(settings.model, facts["kind"])
    place = choose_device(device)
    with seeded(0, place):
        model, module = adapters.build(source, facts["classes"], settings, place)
    adapters.restore(module, folder)

    def logits(texts: Sequence[str]) -> np.ndarray:
        return predict(module, model.tokens(texts, facts["kind"], settings.max_tokens))

    return logits
