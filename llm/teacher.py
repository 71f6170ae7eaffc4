"""What a fine-tuned model leaves for the quantum rounds, and its entry in the site's store.

An entry's folder holds the model's own files, the raw logits (npz, no pickle) and ``facts.json``.
Nothing heavy is imported here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core import ContentStore

FORMAT = 1
"""Of `content_key`: raise it where old entries must not be used any more."""

FACTS, LOGITS = "facts.json", "logits.npz"


def no_rows() -> np.ndarray:
    """Return the (0, 0) array that stands for what a teacher does not have."""
    return np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class Teacher:
    """What a fine-tuned model predicts for a site's rows.

    Attributes
    ----------
    soft_logits : np.ndarray
        float32, (train rows, C): raw logits of the training rows.
    val_logits : np.ndarray
        float32, (validation rows, C).
    temperature : float
        Fitted on the validation rows, or 1; a cross-fitted teacher's on its training rows.
    soft_labels : np.ndarray
        float32, (train rows, C): probabilities at that temperature.
    val_probabilities : np.ndarray
        float32, (validation rows, C): likewise, but cross-fitted at a temperature of their own.
    metrics : dict
        ``loss`` (nats, at the temperature), ``raw_loss``, ``accuracy``, ``macro_f1`` of the
        validation rows, or of the training rows where there are none; ``validation_rows``,
        ``epochs``, ``best_epoch``, ``tokens`` (trained on in this call), ``seconds`` (of this
        call), ``trainable`` (parameters), ``adapter_bytes`` (float32), ``reused``, ``peft``
        (lora, qlora or none), ``cut`` (training rows longer than `llm.max_tokens`).
    folder : Path or None
        Where the store has adapter and logits.
    extra_logits : np.ndarray
        float32, (extra rows, C): raw logits of the rows that it only predicted.
    extra_soft_labels : np.ndarray
        float32, (extra rows, C): probabilities of these rows at the temperature.
    hidden : np.ndarray
        float32, (train rows, d): mean-pooled last hidden states, where they were requested.
    """

    soft_logits: np.ndarray
    val_logits: np.ndarray
    temperature: float
    soft_labels: np.ndarray
    val_probabilities: np.ndarray
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    extra_logits: np.ndarray = field(default_factory=no_rows)
    extra_soft_labels: np.ndarray = field(default_factory=no_rows)
    hidden: np.ndarray = field(default_factory=no_rows)


FIGURES = ("loss", "raw_loss", "accuracy", "macro_f1", "epochs", "reused", "tokens", "cut")


def no_teacher() -> Teacher:
    """Return what stands for a model where none is fine-tuned: no rows, temperature 0."""
    none = no_rows()
    return Teacher(none, none, 0.0, none, none, dict.fromkeys(FIGURES, 0))


@dataclass(frozen=True)
class Entry:
    """What the store holds of a fine-tuning.

    Attributes
    ----------
    train_logits, val_logits : np.ndarray
        float32, (rows, C); no validation rows: (0, C).
    facts : dict
        JSON values: epochs, tokens, sizes, settings, model.
    folder : Path or None
        Where it is stored.
    extra : dict of np.ndarray
        What only some teachers have, by name, (rows, ...).
    """

    train_logits: np.ndarray
    val_logits: np.ndarray
    facts: dict[str, Any]
    folder: Path | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def content_key(
    texts: Sequence[Sequence[str]],
    labels: Sequence[np.ndarray],
    facts: Mapping[str, Any],
) -> str:
    """Return a hash of everything that a fine-tuning depends on, 32 hexadecimal digits.

    Parameters
    ----------
    texts, labels : sequence of sequences of str, sequence of np.ndarray
        Training and validation rows, and their labels.
    facts : mapping
        Settings, seed, model identity; JSON values.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, facts], sort_keys=True).encode())
    for part, numbers in zip(texts, labels, strict=True):
        digest.update(f"rows {len(part)}\n".encode())
        for text in part:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(encoded)}:".encode() + encoded)
        digest.update(np.asarray(numbers, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]


def teacher_store(store: Path) -> ContentStore:
    """Return the part of a site's store that holds fine-tuned models and adapters."""
    return ContentStore(store / "teachers")


def read_facts(folder: Path) -> dict[str, Any]:
    """Return an entry's facts."""
    return dict(json.loads((folder / FACTS).read_text(encoding="utf-8")))


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write an entry's facts."""
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_entry(store: Path, key: str) -> Entry | None:
    """Return the entry of a key, or None if there is none or it is damaged."""

    def load(folder: Path) -> Entry:
        with np.load(folder / LOGITS) as file:
            arrays = dict(file)
        return Entry(arrays.pop("train"), arrays.pop("val"), read_facts(folder), folder, arrays)

    return teacher_store(store).read(key, load)


def write_entry(store: Path, key: str, entry: Entry, save_model: Callable[[Path], None]) -> Path:
    """Store an entry with its model's files, which `save_model` writes; return its folder.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """

    def save(folder: Path) -> None:
        save_model(folder)
        arrays: dict[str, Any] = {"train": entry.train_logits, "val": entry.val_logits}
        np.savez(folder / LOGITS, **arrays, **entry.extra)
        write_facts(folder, entry.facts)

    return teacher_store(store).write(key, save)
