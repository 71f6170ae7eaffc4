"""Mean-pooled last hidden states: what a transformer's embeddings are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from llm.batches import Tokens, sorted_batches
from llm.device import choose_device, device_of, enough_memory, moved
from llm.encoders import mean_pool
from llm.models import load_base
from llm.protocol import ModelContext, Progress, silent
from llm.shared_adapter import build_frozen
from llm.time_left import TimeLeft

_BATCH = 16


def base_states(context: ModelContext, texts: Sequence[str]) -> np.ndarray:
    """Embed rows with a base model, frozen or with a shared adapter in it.

    Always in float32 of the base as it is, also where there is bfloat16 and where fine-tuning
    quantises: features must be the same on every node, within float32's rounding.

    Parameters
    ----------
    context : ModelContext
        Model, longest input, device, and the shared adapter if there is one.
    texts : sequence of str
        Rows.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden).

    Raises
    ------
    core.ModelError
        If the model is missing, gated, corrupt or unsuitable, or CUDA is required and absent.
    """
    settings, kind = context.settings, context.kind
    device = choose_device(settings.device)
    if context.adapter is None:
        base = load_base(context.name, kind, settings.layers)
        encoder = base.module
    else:
        whole = settings.model_copy(update={"peft": "lora"})  # the base is never in 4 bits here
        base = build_frozen(whole, kind, context.adapter).model
        encoder = base.encoder
    tokens = base.tokens(texts, kind, settings.max_tokens)
    name, rows = base.source.short, len(tokens)
    if tokens.cut:
        context.progress(f"{name}: {tokens.cut:,} of {rows:,} texts are cut at llm.max_tokens")
    with enough_memory(base.source.name):
        return pooled_states(
            encoder.to(device),
            tokens,
            base.hidden,
            lambda line: context.progress(f"{name}: {line}"),
        )


def pooled_states(
    encoder: torch.nn.Module,
    tokens: Tokens,
    hidden: int,
    progress: Progress = silent,
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
    progress : callable
        Gets a line now and then, if it takes long.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden), in the order of the rows.
    """
    result = np.empty((len(tokens), hidden), dtype=np.float32)
    device = device_of(encoder)
    left = TimeLeft(progress, "embedding", int(tokens.lengths.sum()))
    with torch.inference_mode():
        for indices in sorted_batches(tokens.lengths, _BATCH):
            batch = moved(tokens.batch(indices), device)
            states = encoder(**batch).last_hidden_state
            result[indices] = mean_pool(states, batch["attention_mask"]).cpu().numpy()
            left.add(int(tokens.lengths[indices].sum()))
    return result
