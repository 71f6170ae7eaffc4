"""A fine-tuned transformer: training it, and what it says of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from core import LlmSettings
from llm import adapters
from llm.batches import Tokens
from llm.device import choose_device, device_of, enough_memory, quiet, seeded
from llm.embedding import embed, stored_embedding
from llm.encoders import PooledClassifier
from llm.models import Model
from llm.protocol import ModelContext
from llm.shared_adapter import FrozenAdapter, build_frozen
from llm.sources import Source, resolve
from llm.states import pooled_states
from llm.teacher import read_facts
from llm.training import Rows, Trained, predict, train


@dataclass(frozen=True)
class Fitted:
    """A classifier with its adapters.

    Attributes
    ----------
    context : ModelContext
        What it was made from.
    model : Model
        The classifier with its tokenizer.
    module : torch.nn.Module
        The same with adapters.
    trained : Trained
        How it was trained here; zeros for a shared adapter.
    """

    context: ModelContext
    model: Model
    module: torch.nn.Module
    trained: Trained

    def tokens(self, rows: Sequence[str]) -> Tokens:
        """Tokenise rows as the settings require."""
        return self.model.tokens(rows, self.context.kind, self.context.settings.max_tokens)

    def logits(self, rows: Sequence[str]) -> np.ndarray:
        """Return raw logits, float32, (rows, C)."""
        with enough_memory(self.model.source.name):
            if self.context.adapter and isinstance(self.model.module, PooledClassifier):
                return self._by_features(self.model.module, rows)
            return predict(self.module, self.tokens(rows), progress=self._report)

    def states(self, rows: Sequence[str]) -> np.ndarray:
        """Return mean-pooled last hidden states, float32, (rows, hidden)."""
        with enough_memory(self.model.source.name):
            encoder, hidden = self.model.encoder, self.model.hidden
            return pooled_states(encoder, self.tokens(rows), hidden, self._report)

    def _report(self, line: str) -> None:
        self.context.progress(f"{self.model.source.short}: {line}")

    def sizes(self) -> dict[str, Any]:
        """Return the trainable parameters and their bytes in float32."""
        trainable, _ = adapters.count(self.module)
        return {"trainable": trainable, "adapter_bytes": 4 * trainable}

    def _by_features(self, module: PooledClassifier, rows: Sequence[str]) -> np.ndarray:
        """Return the logits of rows from the features in the store.

        The quantum model's features are mostly the same: one pass through the encoder serves both.
        """
        one = self.context
        given = (rows, one.settings.model_copy(update={"encoder": "auto"}), one.kind)
        features = (
            embed(*given, one.progress, one.adapter)
            if one.store is None
            else stored_embedding(*given, one.store / "features", one.progress, one.adapter)
        )
        with torch.inference_mode():
            logits = module.classifier(torch.from_numpy(features).to(device_of(module)))
            return np.asarray(logits.cpu().numpy())


def with_adapter(context: ModelContext, adapter: FrozenAdapter) -> Fitted:
    """Build the model that the federation has trained."""
    quiet()
    settings, kind = context.settings, context.kind
    with enough_memory(context.name):
        shared = build_frozen(settings, kind, adapter)
    return Fitted(context, shared.model, shared.module, Trained(0, 0, 0))


def fine_tuned(
    context: ModelContext,
    source: Source,
    rows: Sequence[str],
    labels: np.ndarray,
    validation_rows: Sequence[str],
    validation_labels: np.ndarray,
    classes: int,
    seed: int,
) -> Fitted:
    """Fine-tune a model; no global generator is touched.

    Parameters
    ----------
    context, source : ModelContext and Source
        Settings and rows' kind; the model.
    rows, labels, validation_rows, validation_labels, classes, seed
        As in `llm.protocol.LocalModel.fit`.

    Raises
    ------
    core.ModelError
        If the model is unsuitable, CUDA or 4 bits are required where they do not work, or training
        diverges.
    """
    quiet()
    device = choose_device(context.settings.device)
    settings = adapters.chosen(context.settings, source)
    with enough_memory(source.name), seeded(seed, device):
        model, module = adapters.build(source, classes, settings, device)
        made = Fitted(context, model, module, Trained(0, 0, 0))
        trainable, total = adapters.count(module)
        context.progress(
            f"{source.short}: training {trainable:,} of {total:,} parameters ({settings.peft} on "
            f"{device.type}, {4 * trainable / 1e6:.2f} MB) on {len(rows):,} rows"
        )
        trained = train(
            module,
            model.heads,
            Rows(made.tokens(rows), labels),
            Rows(made.tokens(validation_rows), validation_labels),
            settings,
            seed,
            lambda line: context.progress(f"{source.short}: {line}"),
        )
    return Fitted(context, model, module, trained)


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
    source = resolve(settings.model, facts["kind"], layers=settings.layers)
    place = choose_device(device)
    with seeded(0, place):
        model, module = adapters.build(source, facts["classes"], settings, place)
    adapters.restore(module, folder)

    def logits(texts: Sequence[str]) -> np.ndarray:
        return predict(module, model.tokens(texts, facts["kind"], settings.max_tokens))

    return logits
