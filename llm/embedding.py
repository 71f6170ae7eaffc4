"""Embeddings: the mean-pooled last hidden state of a base model, computed once and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from core import ContentStore, LlmSettings
from llm.batches import Tokens, sorted_batches
from llm.device import choose_device, device_of, enough_memory, moved
from llm.encoders import mean_pool
from llm.models import load_base
from llm.shared_adapter import FrozenAdapter, build_frozen
from llm.sources import Kind, resolve
from llm.teacher import content_key

_BATCH = 16
_PROGRESS_ROWS = 5000
_FEATURES = "features.npz"

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Report no progress."""


def embed(
    texts: Sequence[str],
    settings: LlmSettings,
    kind: Kind,
    progress: Progress = silent,
    adapter: FrozenAdapter | None = None,
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
    progress : callable
        Gets a line every 5,000 rows.
    adapter : FrozenAdapter or None
        The shared adapter; None is the frozen base.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden).

    Raises
    ------
    core.ModelError
        If the model is missing, gated, corrupt or unsuitable, or CUDA is required and absent.
    """
    device = choose_device(settings.device)
    if adapter is None:
        base = load_base(settings.model, kind)
        encoder = base.module
    else:
        whole = settings.model_copy(update={"peft": "lora"})  # the base is never in 4 bits here
        base = build_frozen(whole, kind, adapter).model
        encoder = base.encoder
    tokens = base.tokens(texts, kind, settings.max_tokens)
    name, rows = base.source.short, len(tokens)
    if tokens.cut:
        progress(f"{name}: {tokens.cut:,} of {rows:,} texts are cut at llm.max_tokens")
    with enough_memory(base.source.name):
        return pooled_states(
            encoder.to(device),
            tokens,
            base.hidden,
            lambda done: progress(f"{name}: {done:,} of {rows:,} rows embedded"),
        )


def stored_embedding(
    texts: Sequence[str],
    settings: LlmSettings,
    kind: Kind,
    store: Path,
    progress: Progress = silent,
    adapter: FrozenAdapter | None = None,
) -> np.ndarray:
    """Return `embed` of the rows, from the site's store where it is there.

    Parameters
    ----------
    texts, settings, kind, adapter
        As in `embed`.
    store : Path
        Folder of the embeddings, private to its owner. A damaged entry is computed again; where
        none can be written the embeddings are returned all the same.
    progress : callable
        Gets a line where rows are to be embedded, one now and then while they are, and one if
        the embeddings cannot be stored.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden).
    """

    def load(folder: Path) -> np.ndarray:
        with np.load(folder / _FEATURES) as file:
            return np.asarray(file["features"])

    source = resolve(settings.model, kind)
    facts = {"model": source.identity, "kind": kind, "max_tokens": settings.max_tokens}
    if adapter:
        # Not `llm.peft`: the base is in float32 here, and all sites draw the same A.
        shape = settings.model_dump(include={"rank", "alpha", "targets", "federated"})
        facts |= {**adapter.facts(), **shape}
    entries, key = ContentStore(store), content_key([texts], [np.zeros(0)], facts)
    found = entries.read(key, load)
    if found is not None:
        return found
    if texts:
        progress(f"{source.short}: embedding {len(texts):,} rows")
    features = embed(texts, settings, kind, progress, adapter)
    try:
        entries.write(key, lambda folder: np.savez(folder / _FEATURES, features=features))
    except OSError as error:
        progress(f"{source.short}: the embeddings are not stored ({error})")
    return features


def pooled_states(
    encoder: torch.nn.Module,
    tokens: Tokens,
    hidden: int,
    report: Callable[[int], None] = lambda _: None,
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
    report : callable
        Gets the number of rows done, about every 5,000 rows.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden), in the order of the rows.
    """
    result = np.empty((len(tokens), hidden), dtype=np.float32)
    device = device_of(encoder)
    done = reported = 0
    with torch.inference_mode():
        for indices in sorted_batches(tokens.lengths, _BATCH):
            batch = moved(tokens.batch(indices), device)
            states = encoder(**batch).last_hidden_state
            result[indices] = mean_pool(states, batch["attention_mask"]).cpu().numpy()
            done += len(indices)
            if done - reported >= _PROGRESS_ROWS:
                reported = done
                report(done)
    return result
