"""What a fine-tuning depends on: rows, settings and seed, and how they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core import DataError, LlmSettings
from llm.batches import Tokens
from llm.frozen_adapter import Adopted
from llm.models import Model
from llm.sources import Kind, Source
from llm.store import content_key
from llm.training import RECIPE, Plan

# Rate of the encoder's own weights, as a multiple of `llm.learning_rate`. With any change here
# raise `llm.training.RECIPE`.
WHOLE_MODEL_RATE = 0.1

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Task:
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
    adopted: Adopted | None = None
    asked_texts: Sequence[str] = ()
    hidden: bool = False

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
            **(self.adopted.facts() if self.adopted else {}),
        }

    def key(self, source: Source) -> str:
        """Return the content key of the result."""
        # The same weights under another name are the same model.
        facts = {name: value for name, value in self.facts(source).items() if name != "model"}
        if self.hidden:  # else the key is that of teachers kept before there was a choice
            facts["hidden"] = True
        texts, labels = [self.train_texts, self.val_texts], [self.train_labels, self.val_labels]
        if self.asked_texts:
            texts, labels = [*texts, self.asked_texts], [*labels, np.zeros(0)]
        return content_key(texts, labels, facts)


def checked_labels(texts: Sequence[str], labels: np.ndarray, classes: int) -> np.ndarray:
    """Return one label a row, int64, (rows,), each in [0, classes).

    Raises
    ------
    core.DataError
        If they are not.
    """
    numbers = np.asarray(labels, dtype=np.int64).reshape(-1)
    if len(numbers) != len(texts):
        raise DataError(
            f"{len(texts)} rows and {len(numbers)} labels", "one label a row", "check the data"
        )
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= classes):
        raise DataError(
            f"labels from {numbers.min()} to {numbers.max()}",
            f"0 to {classes - 1}",
            "check the data",
        )
    return numbers


def tokens_of(model: Model, task: Task, texts: Sequence[str]) -> Tokens:
    """Tokenise rows as a task's settings say."""
    return model.tokens(texts, task.kind, task.settings.max_tokens)


def plan_of(task: Task) -> Plan:
    """Return how a task's settings train."""
    settings = task.settings
    rate = settings.learning_rate
    return Plan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=rate if settings.peft != "none" else WHOLE_MODEL_RATE * rate,
        head_rate=settings.head_learning_rate or rate,
        patience=settings.patience,
        seed=task.seed,
    )
