"""Fine-tune a local language model once, and turn it into a calibrated teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from federation import DataError, LlmSettings, explain
from llm import adapters, calibration
from llm.device import choose_device, enough_memory, seeded
from llm.models import Model
from llm.quiet import quiet
from llm.sources import Kind, Source, resolve
from llm.store import Entry, content_key, read_entry, write_entry
from llm.training import RECIPE, Plan, Rows, predict, train

# Rate of the encoder's own weights, as a multiple of `llm.learning_rate`. With any change here
# raise `llm.training.RECIPE`.
WHOLE_MODEL_RATE = 0.1

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def _tell(name: str, progress: Progress, line: str) -> None:
    progress(f"{name}: {line}")


@dataclass(frozen=True)
class Teacher:
    """What a fine-tuned model says of a site's rows.

    Attributes
    ----------
    soft_logits : np.ndarray
        float32, (train rows, C): raw logits of the training rows.
    val_logits : np.ndarray
        float32, (validation rows, C).
    temperature : float
        Fitted on the validation rows, or 1.
    soft_labels : np.ndarray
        float32, (train rows, C): probabilities at that temperature.
    val_probabilities : np.ndarray
        float32, (validation rows, C): likewise.
    metrics : dict
        ``loss`` (nats, at the temperature), ``raw_loss``, ``accuracy``, ``macro_f1`` of the
        validation rows, or of the training rows where there are none; ``validation_rows``,
        ``epochs``, ``best_epoch``, ``tokens`` (trained on in this call), ``seconds`` (of this
        call), ``trainable`` (parameters), ``adapter_bytes`` (float32), ``reused``, ``peft``
        (lora, qlora or none).
    folder : Path or None
        Where adapter and logits are kept.
    """

    soft_logits: np.ndarray
    val_logits: np.ndarray
    temperature: float
    soft_labels: np.ndarray
    val_probabilities: np.ndarray
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class _Task:
    """The rows and all that a fine-tuning depends on."""

    train_texts: Sequence[str]
    train_labels: np.ndarray
    val_texts: Sequence[str]
    val_labels: np.ndarray
    classes: int
    settings: LlmSettings
    kind: Kind
    seed: int
    calibrate: bool

    def facts(self, source: Source) -> dict[str, Any]:
        # On which device it was trained makes no other teacher of it.
        skipped = {"model", "reuse", "store", "device"}
        return {
            "recipe": RECIPE,
            "model": source.name,
            "identity": source.identity,
            "kind": self.kind,
            "classes": self.classes,
            "seed": self.seed,
            "calibrate": self.calibrate,
            "settings": self.settings.model_dump(exclude=skipped),
        }

    def key(self, source: Source) -> str:
        # The same weights under another name are the same model.
        facts = {name: value for name, value in self.facts(source).items() if name != "model"}
        texts = (self.train_texts, self.val_texts)
        return content_key(texts, (self.train_labels, self.val_labels), facts)


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
    progress: Progress = _silent,
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
        Whether to fit the temperature on the validation rows; the epoch that is kept is then
        chosen by the loss at its own temperature.
    store : Path or None
        Folder of the site's memory; None keeps nothing.
    progress : callable
        Gets lines of the run's own progress.

    Returns
    -------
    Teacher
        Its numbers are the same for the same arguments at a fixed number of threads.

    Raises
    ------
    federation.DataError
        If there is no training row, or labels do not fit.
    federation.ModelError
        If the model is missing, corrupt or unsuitable, CUDA or 4 bits are asked for where they
        do not work, or training diverges.
    """
    train_rows = tuple(train_texts), _labels(train_texts, train_labels, classes)
    val_rows = tuple(val_texts), _labels(val_texts, val_labels, classes)
    task = _Task(*train_rows, *val_rows, classes, settings, kind, seed, calibrate)
    if not len(task.train_labels):
        raise DataError(explain("no training row", "at least one", "give this site data"))
    return _kept_or_new(task, store, progress)


def _kept_or_new(task: _Task, store: Path | None, progress: Progress) -> Teacher:
    start = time.perf_counter()
    source = resolve(task.settings.model, task.kind)
    task = replace(task, settings=_chosen(task.settings, source))
    key = task.key(source)
    entry = read_entry(store, key) if store is not None and task.settings.reuse else None
    reused = entry is not None
    if entry is None:
        entry = _fine_tune(task, source, key, store, progress)
    else:
        progress(f"{source.short}: taken from {entry.folder}, not fine-tuned again")
    teacher = _teacher(entry, task)
    teacher.metrics.update(reused=reused, seconds=time.perf_counter() - start)
    if reused:
        teacher.metrics["tokens"] = 0
    return teacher


def _chosen(settings: LlmSettings, source: Source) -> LlmSettings:
    """Return the settings with what ``auto`` means here; it is part of the store's key."""
    kind = adapters.choose_peft(settings.peft, source, choose_device(settings.device))
    return settings.model_copy(update={"peft": kind})


def _labels(texts: Sequence[str], labels: np.ndarray, classes: int) -> np.ndarray:
    numbers = np.asarray(labels, dtype=np.int64).reshape(-1)
    if len(numbers) != len(texts):
        raise DataError(
            explain(
                f"{len(texts)} rows and {len(numbers)} labels", "one label a row", "check the data"
            )
        )
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= classes):
        raise DataError(
            explain(
                f"labels from {numbers.min()} to {numbers.max()}",
                f"0 to {classes - 1}",
                "check the data",
            )
        )
    return numbers


def _fine_tune(
    task: _Task, source: Source, key: str, store: Path | None, progress: Progress
) -> Entry:
    quiet()
    settings = task.settings
    device = choose_device(settings.device)
    with enough_memory(source.name), seeded(task.seed, device):
        model, module = adapters.build(source, task.classes, settings, device)
        trainable, total = adapters.count(module)
        size = 4 * trainable
        progress(
            f"{source.short}: training {trainable:,} of {total:,} parameters "
            f"({settings.peft} on {device.type}, {size / 1e6:.2f} MB) "
            f"on {len(task.train_texts):,} rows"
        )
        rows = Rows(_tokens(model, task, task.train_texts), task.train_labels)
        validation = Rows(_tokens(model, task, task.val_texts), task.val_labels)
        told = partial(_tell, source.short, progress)
        done = train(module, model.heads, rows, validation, _plan(task), told)
        logits = predict(module, rows.tokens)
        val_logits = predict(module, validation.tokens).reshape(-1, task.classes)
    facts = {
        **task.facts(source),
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "tokens": done.tokens,
        "trainable": trainable,
        "adapter_bytes": size,
    }
    entry = Entry(logits, val_logits, facts)
    if store is None:
        return entry
    try:
        folder = write_entry(store, key, entry, lambda path: adapters.save(module, path))
    except OSError as error:
        progress(f"{source.short}: the fine-tuned model is not kept ({error})")
        return entry
    return replace(entry, folder=folder)


def _tokens(model: Model, task: _Task, texts: Sequence[str]) -> Any:
    return model.tokens(texts, task.kind, task.settings.max_tokens)


def _plan(task: _Task) -> Plan:
    settings = task.settings
    rate = settings.learning_rate
    return Plan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=rate if settings.peft != "none" else WHOLE_MODEL_RATE * rate,
        head_rate=settings.head_learning_rate or rate,
        patience=settings.patience,
        seed=task.seed,
        calibrate=task.calibrate,
    )


def _teacher(entry: Entry, task: _Task) -> Teacher:
    held_out = bool(len(task.val_labels))
    temperature = 1.0
    if task.calibrate and held_out:
        temperature = calibration.fit_temperature(entry.val_logits, task.val_labels)
    logits = entry.val_logits if held_out else entry.train_logits
    labels = task.val_labels if held_out else task.train_labels
    kept = ("epochs", "best_epoch", "tokens", "trainable", "adapter_bytes")
    metrics = {
        "loss": calibration.loss(logits, labels, temperature),
        "raw_loss": calibration.loss(logits, labels),
        "accuracy": calibration.accuracy(logits, labels),
        "macro_f1": calibration.macro_f1(logits, labels),
        "validation_rows": len(task.val_labels),
        **{name: entry.facts[name] for name in kept},
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
    federation.ModelError
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
