"""What a fine-tuned model leaves for the quantum rounds: numbers alone, so nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


def no_rows() -> np.ndarray:
    """Return the (0, 0) array of what a teacher was not asked for."""
    return np.zeros((0, 0), dtype=np.float32)


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
        Where adapter and logits are kept.
    asked_logits : np.ndarray
        float32, (asked rows, C): raw logits of the rows that it was only asked about.
    hidden : np.ndarray
        float32, (train rows, d): mean-pooled last hidden states, where they were asked for.
    """

    soft_logits: np.ndarray
    val_logits: np.ndarray
    temperature: float
    soft_labels: np.ndarray
    val_probabilities: np.ndarray
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    asked_logits: np.ndarray = field(default_factory=no_rows)
    hidden: np.ndarray = field(default_factory=no_rows)


FIGURES = ("loss", "raw_loss", "accuracy", "macro_f1", "epochs", "reused", "tokens", "cut")


def no_teacher() -> Teacher:
    """Return what stands for a model where none is fine-tuned: no rows, temperature 0."""
    none = no_rows()
    return Teacher(none, none, 0.0, none, none, dict.fromkeys(FIGURES, 0))
