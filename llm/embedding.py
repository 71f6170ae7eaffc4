"""Embeddings: the mean-pooled last hidden state of a base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from core import LlmSettings
from llm.batches import Tokens, sorted_batches
from llm.device import choose_device, device_of, enough_memory, moved
from llm.frozen_adapter import Adopted
from llm.models import load_base
from llm.pooled import mean_pool
from llm.shared import build_adopted
from llm.sources import Kind

_BATCH = 16
_PROGRESS_ROWS = 5000


def embed(
    texts: Sequence[str],
    settings: LlmSettings,
    kind: Kind,
    progress: Callable[[str], None] | None = None,
    adopted: Adopted | None = None,
) -> np.ndarray:
    """Embed rows with the base model of `settings`, frozen or with a shared adapter in it.

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
    adopted : Adopted or None
        The shared adapter; None is the frozen base.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden).

    Raises
    ------
    core.ModelError
        If the model is missing, gated, corrupt or unsuitable, or CUDA is asked for and absent.
    """
    device = choose_device(settings.device)
    if adopted is None:
        base = load_base(settings.model, kind)
        encoder = base.module
    else:
        whole = settings.model_copy(update={"peft": "lora"})  # the base is never in 4 bits here
        base = build_adopted(whole, kind, adopted).model
        encoder = base.encoder
    tokens = base.tokens(texts, kind, settings.max_tokens)
    if progress and tokens.cut:
        progress(
            f"{base.source.short}: {tokens.cut:,} of {len(tokens):,} texts are cut at "
            "llm.max_tokens"
        )
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        if progress and done - told >= _PROGRESS_ROWS:
            told = done
            progress(f"{base.source.short}: {done:,} of {len(tokens):,} rows embedded")

    with enough_memory(base.source.name):
        return pooled_states(encoder.to(device), tokens, base.hidden, tell)


def pooled_states(
    encoder: torch.nn.Module,
    tokens: Tokens,
    hidden: int,
    tell: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Return the mean-pooled last hidden states of rows, in float32.

    Parameters
    ----------
    encoder : torch.nn.Module
        A model whose output has ``last_hidden_state``, in eval mode.
    tokens : Tokens
        Rows.
    hidden : int
        Size of a state.
    tell : callable
        Gets the number of rows done after each batch.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden), in the order of the rows.
    """
    result = np.empty((len(tokens), hidden), dtype=np.float32)
    device = device_of(encoder)
    done = 0
    with torch.inference_mode():
        for indices in sorted_batches(tokens.lengths, _BATCH):
            batch = moved(tokens.batch(indices), device)
            states = encoder(**batch).last_hidden_state
            result[indices] = mean_pool(states, batch["attention_mask"]).cpu().numpy()
            done += len(indices)
            tell(done)
    return result
