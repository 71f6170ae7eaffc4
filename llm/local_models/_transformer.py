"""A transformers model with adapters: what every hub id and folder is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llm.protocol import Kind, ModelContext, Progress, silent

if TYPE_CHECKING:
    from llm.sources import Source


class Transformer:
    """A language model that is fine-tuned, or that has the federation's shared adapter.

    Its logits are raw, its embeddings mean-pooled last hidden states: of the frozen base before
    `fit`, of the fine-tuned model afterwards.

    Parameters
    ----------
    context : ModelContext
        Name, rows and settings.

    Raises
    ------
    core.ModelError
        If the model is missing, gated, unreachable or cannot read such rows.
    """

    uses: ClassVar[tuple[str, ...]] = (
        "llm.peft",
        "llm.device",
        "llm.layers",
        "llm.rank",
        "llm.alpha",
        "llm.dropout",
        "llm.targets",
        "llm.epochs",
        "llm.batch_size",
        "llm.learning_rate",
        "llm.head_learning_rate",
        "llm.patience",
        "llm.federated",
        "llm.max_tokens",
    )
    takes_options = False

    def __init__(self, context: ModelContext) -> None:
        self.context = context
        source = self.find_source(context.name, context.kind, context.progress)
        self.source = source.first(context.settings.layers)
        self.name, self.identity = self.source.name, self.source.identity
        self._fitted: Any = None

    @classmethod
    def find_source(cls, name: str, kind: Kind, progress: Progress = silent) -> Source:
        """Find the model's files; a GGUF file is unpacked."""
        from llm.sources import locate

        return locate(name, progress=progress)

    def facts(self) -> dict[str, Any]:
        """Return what its training depends on besides rows and seed; JSON values."""
        from llm.adapters import chosen, facts

        return facts(chosen(self.context.settings, self.source), self.source)

    def fit(
        self,
        rows: Sequence[str],
        labels: np.ndarray,
        validation_rows: Sequence[str],
        validation_labels: np.ndarray,
        classes: int,
        seed: int,
    ) -> Mapping[str, Any]:
        """Fine-tune it, as `llm.protocol.LocalModel.fit`; a shared adapter is taken as it is."""
        from llm.fitted import fine_tuned, with_adapter

        if self.context.adapter:
            self._fitted = with_adapter(self.context, self.context.adapter)
        else:
            given = (rows, labels, validation_rows, validation_labels)
            self._fitted = fine_tuned(self.context, self.source, *given, classes, seed)
        return {**asdict(self._fitted.trained), **self._fitted.sizes()}

    def logits(self, rows: Sequence[str]) -> np.ndarray:
        """Return raw logits, float32, (rows, C)."""
        return np.asarray(self._fitted.logits(rows))

    def soft_labels(self, rows: Sequence[str]) -> np.ndarray:
        """Return the logits' probabilities, float64, (rows, C)."""
        from llm.calibration import softmax

        return softmax(self.logits(rows))

    def embed(self, rows: Sequence[str]) -> np.ndarray:
        """Return mean-pooled last hidden states, float32, (rows, hidden)."""
        from llm.states import base_states

        if self._fitted is not None:
            return np.asarray(self._fitted.states(rows))
        return base_states(self.context, rows)

    def cut(self, rows: Sequence[str]) -> int:
        """Return how many rows are cut at `llm.max_tokens`."""
        return int(self._fitted.tokens(rows).cut)

    def save(self, folder: Path) -> None:
        """Write adapter and head, or all weights."""
        from llm import adapters

        adapters.save(self._fitted.module, folder)


MODEL = Transformer
