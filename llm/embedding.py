"""Embeddings: the mean-pooled last hidden state of a frozen base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from federation import LlmSettings
from llm.batches import sorted_batches
from llm.device import choose_device, enough_memory, moved
from llm.models import load_base
from llm.pooled import mean_pool
from llm.sources import Kind

_BATCH = 16
_PROGRESS_ROWS = 5000


def embed(
    texts: Sequence[str],
    settings: LlmSettings,
    kind: Kind,
    progress: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Embed rows with the frozen base model of `settings`.

    Batches hold rows of similar length; the order of the result is that of `texts`. Always in
    float32 of the base as it is, also where there is bfloat16 and where fine-tuning quantises:
    these features must be the same on every node, within float32's rounding.

    Parameters
    ----------
    texts : sequence of str
        Rows.
    settings : LlmSettings
        Model, longest input and device.
    kind : {"text", "dna"}
        What the rows are.
    progress : callable or None
        Gets a line every 5,000 rows.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden).

    Raises
    ------
    federation.ModelError
        If the model is missing, gated, corrupt or unsuitable, or CUDA is asked for and absent.
    """
    device = choose_device(settings.device)
    base = load_base(settings.model, kind)
    tokens = base.tokens(texts, kind, settings.max_tokens)
    result = np.empty((len(tokens), base.hidden), dtype=np.float32)
    done = told = 0
    with enough_memory(base.source.name), torch.inference_mode():
        base.module.to(device)
        for indices in sorted_batches(tokens.lengths, _BATCH):
            batch = moved(tokens.batch(indices), device)
            states = base.module(**batch).last_hidden_state
            result[indices] = mean_pool(states, batch["attention_mask"]).cpu().numpy()
            done += len(indices)
            if progress and done - told >= _PROGRESS_ROWS:
                told = done
                progress(f"{base.source.short}: {done:,} of {len(tokens):,} rows embedded")
    return result
