"""Features of rows by a local model that has learned nothing yet, computed once and stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core import ContentStore, LlmSettings
from llm.checked import CheckedModel, build_encoder
from llm.protocol import Kind, ModelContext, Progress, silent
from llm.teacher import content_key

if TYPE_CHECKING:
    from llm.shared_adapter import FrozenAdapter

_FEATURES = "features.npz"


def embed(
    texts: Sequence[str],
    settings: LlmSettings,
    kind: Kind,
    progress: Progress = silent,
    adapter: FrozenAdapter | None = None,
) -> np.ndarray:
    """Embed rows with the model of `settings` as it is before any fitting.

    Parameters
    ----------
    texts : sequence of str
        Rows.
    settings : LlmSettings
        `llm.encoder`, or `llm.model` where that is ``auto``; of transformers longest input and
        device.
    kind : {"text", "dna"}
        What the rows are.
    progress : callable
        Gets a line now and then, if it takes long.
    adapter : FrozenAdapter or None
        The shared adapter; None is the frozen base.

    Returns
    -------
    np.ndarray
        float32, (rows, d), in the order of `texts`.

    Raises
    ------
    core.ModelError
        If the model is missing, gated, corrupt or unsuitable, or CUDA is required and absent.
    """
    return _encoder(settings, kind, progress, adapter).embed(texts)


def _encoder(
    settings: LlmSettings, kind: Kind, progress: Progress, adapter: FrozenAdapter | None
) -> CheckedModel:
    context = ModelContext(kind=kind, settings=settings, progress=progress, adapter=adapter)
    return build_encoder(context)


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
        float32, (rows, d).
    """

    def load(folder: Path) -> np.ndarray:
        with np.load(folder / _FEATURES) as file:
            return np.asarray(file["features"])

    encoder = _encoder(settings, kind, progress, adapter)
    facts = {"model": encoder.identity, "kind": kind, "max_tokens": settings.max_tokens}
    facts |= encoder.session
    if adapter:
        # Not `llm.peft`: the base is in float32 here, and all sites draw the same A.
        shape = settings.model_dump(include={"rank", "alpha", "targets", "federated"})
        facts |= {**adapter.facts(), **shape}
    entries, key = ContentStore(store), content_key([texts], [np.zeros(0)], facts)
    found = entries.read(key, load)
    if found is not None:
        return found
    if texts:
        progress(f"{encoder.short}: embedding {len(texts):,} rows")
    features = encoder.embed(texts)
    try:
        entries.write(key, lambda folder: np.savez(folder / _FEATURES, features=features))
    except OSError as error:
        progress(f"{encoder.short}: the embeddings are not stored ({error})")
    return features
