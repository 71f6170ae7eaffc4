"""Fine-tune a local language model once, and turn it into a calibrated teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from core import DataError, LlmSettings
from llm import adapters, calibration
from llm.batches import Tokens, drawn_rows
from llm.device import choose_device, device_of, enough_memory, quiet, seeded
from llm.embedding import Progress, embed, pooled_states, silent, stored_embedding
from llm.encoders import PooledClassifier
from llm.models import Model
from llm.shared_adapter import FrozenAdapter, build_frozen
from llm.sources import Kind, Source, resolve
from llm.teacher import Entry, Teacher, content_key, no_rows, read_entry, read_facts, write_entry
from llm.training import RECIPE, Rows, Trained, predict, train


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

    def __post_init__(self) -> None:
        for part in ("train", "val"):
            texts, labels = getattr(self, f"{part}_texts"), getattr(self, f"{part}_labels")
            object.__setattr__(self, f"{part}_labels", _checked(texts, labels, self.classes))

    def facts(self, source: Source) -> dict[str, Any]:
        """Return what the result depends on besides the rows; JSON values."""
        # On which device it was trained makes no other teacher of it.
        skipped = {"model", "reuse", "store", "device"}
        return {
            "recipe": RECIPE,
            "model": source.name,
            "identity": source.identity,
            "kind": self.kind,
            "classes": self.classes,
            "seed": self.seed,
            "settings": self.settings.model_dump(exclude=skipped),
            **(self.adapter.facts() if self.adapter else {}),
        }

    def key(self, source: Source) -> str:
        """Return the content key of the result."""
        # The same weights under another name are the same model.
        facts = {name: value for name, value in self.facts(source).items() if name != "model"}
        if self.hidden:
            facts["hidden"] = True
        texts, labels = [self.train_texts, self.val_texts], [self.train_labels, self.val_labels]
        if self.extra_texts:
            texts, labels = [*texts, self.extra_texts], [*labels, np.zeros(0)]
        return content_key(texts, labels, facts)

    def tokens(self, model: Model, texts: Sequence[str]) -> Tokens:
        """Tokenise rows as the settings require."""
        return model.tokens(texts, self.kind, self.settings.max_tokens)

    def drawn(self, model: Model) -> Rows:
        """Return the training rows that `llm.rows` draws, tokenised."""
        rows = drawn_rows(self.train_labels, self.settings.rows, self.seed)
        texts = [self.train_texts[row] for row in rows]
        return Rows(self.tokens(model, texts), self.train_labels[rows])


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
    """Fine-tune the local model on a site's rows, or take it from the site's store.

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
    core.ModelError
        If the model is missing, corrupt or unsuitable, CUDA or 4 bits are required where they
        do not work, or training diverges.
    """
    if not len(task.train_labels):
        raise DataError("no training row", "at least one", "give this site data")
    start = time.perf_counter()
    source = resolve(task.settings.model, task.kind)
    task = replace(task, settings=adapters.chosen(task.settings, source))
    key = task.key(source)
    entry = read_entry(store, key) if store is not None and task.settings.reuse else None
    # The federation's own model was trained earlier in this run, whoever made its soft labels.
    reused = entry is not None and task.adapter is None
    if entry is None:
        entry = _fine_tune(task, source, key, store, progress)
    else:
        progress(f"{source.short}: taken from {entry.folder}, not fine-tuned again")
    teacher = _teacher(entry, task)
    teacher.metrics.update(reused=reused, seconds=time.perf_counter() - start)
    if reused:
        teacher.metrics["tokens"] = 0
    return teacher


def _fine_tune(
    task: Task, source: Source, key: str, store: Path | None, progress: Progress
) -> Entry:
    """Train, predict, and store the result."""
    quiet()
    device = choose_device(task.settings.device)
    with enough_memory(source.name), seeded(task.seed, device):
        if task.adapter:
            shared = build_frozen(task.settings, task.kind, task.adapter)
            model, module, done = shared.model, shared.module, Trained(0, 0, 0)
        else:
            model, module, done = _trained(task, source, progress)
        entry = _predicted(task, model, module, store, progress)
    trainable, _ = adapters.count(module)
    entry.facts.update(asdict(done), trainable=trainable, adapter_bytes=4 * trainable)
    if store is None:
        return entry
    try:
        folder = write_entry(store, key, entry, lambda path: adapters.save(module, path))
    except OSError as error:
        progress(f"{source.short}: the fine-tuned model is not stored ({error})")
        return entry
    return replace(entry, folder=folder)


def _trained(
    task: Task, source: Source, progress: Progress
) -> tuple[Model, torch.nn.Module, Trained]:
    settings, device = task.settings, choose_device(task.settings.device)
    model, module = adapters.build(source, task.classes, settings, device)
    trainable, total = adapters.count(module)
    rows, validation = task.drawn(model), Rows(task.tokens(model, task.val_texts), task.val_labels)
    progress(
        f"{source.short}: training {trainable:,} of {total:,} parameters ({settings.peft} on "
        f"{device.type}, {4 * trainable / 1e6:.2f} MB) on {len(rows.labels):,} rows"
    )

    done = train(
        module,
        model.heads,
        rows,
        validation,
        settings,
        task.seed,
        lambda line: progress(f"{source.short}: {line}"),
    )
    return model, module, done


def _predicted(
    task: Task, model: Model, module: torch.nn.Module, store: Path | None, progress: Progress
) -> Entry:
    """Return the model's logits, and what else this teacher needs."""
    tokens = task.tokens(model, task.train_texts)
    if tokens.cut:
        words = f"{tokens.cut:,} of {len(tokens):,} training texts are cut at llm.max_tokens"
        progress(f"{model.source.short}: {words}")
    if task.adapter and isinstance(model.module, PooledClassifier):
        logits, val_logits = _by_features(model.module, task, store, progress)
    else:
        logits = predict(module, tokens)
        val_logits = predict(module, task.tokens(model, task.val_texts))
    extra = {}
    if task.extra_texts:
        extra["predicted"] = predict(module, task.tokens(model, task.extra_texts))
    if task.hidden:
        extra["hidden"] = pooled_states(model.encoder, tokens, model.hidden)
    facts = {**task.facts(model.source), "cut": tokens.cut}
    return Entry(logits, val_logits.reshape(-1, task.classes), facts, extra=extra)


def _by_features(
    module: PooledClassifier, task: Task, store: Path | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of training and validation rows from the features in the store.

    The quantum model's features are mostly the same: one pass through the encoder serves both.
    """
    found = []
    for texts in (task.train_texts, task.val_texts):
        given = (texts, task.settings, task.kind)
        features = (
            embed(*given, progress, task.adapter)
            if store is None
            else stored_embedding(*given, store / "features", progress, task.adapter)
        )
        with torch.inference_mode():
            logits = module.classifier(torch.from_numpy(features).to(device_of(module)))
            found.append(logits.cpu().numpy())
    return found[0], found[1]


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
        extra_logits=entry.extra.get("predicted", no_rows()),
        hidden=entry.extra.get("hidden", no_rows()),
    )


def load_fine_tuned(
    folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> Callable[[Sequence[str]], np.ndarray]:
    """Load a model that a site has stored in `Teacher.folder`; device as for `llm.device`.

    Returns
    -------
    callable
        From texts to raw logits, float32, (rows, C).

    Raises
    ------
    core.ModelError
        If its base model is not there any more, or the device is not.
    """
    facts = read_facts(folder)
    settings = LlmSettings(model=facts["model"], **facts["settings"])
    source = resolve(settings.model, facts["kind"])
    place = choose_device(device)
    with seeded(0, place):
        model, module = adapters.build(source, facts["classes"], settings, place)
    adapters.restore(module, folder)

    def logits(texts: Sequence[str]) -> np.ndarray:
        return predict(module, model.tokens(texts, facts["kind"], settings.max_tokens))

    return logits
