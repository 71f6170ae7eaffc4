"""Embeddings kept on disk: a text is embedded once, whoever asks again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core import LlmSettings, atomic_write, private_folder
from llm.frozen_adapter import Adopted
from llm.sources import Kind, resolve
from llm.store import FILE_MODE, content_key


def stored_embedding(
    texts: Sequence[str],
    settings: LlmSettings,
    kind: Kind,
    store: Path,
    progress: Callable[[str], None] | None = None,
    adopted: Adopted | None = None,
) -> np.ndarray:
    """Return `llm.embed` of the rows, from the site's store where it is there.

    Parameters
    ----------
    texts : sequence of str
        Rows.
    settings : LlmSettings
        Model and longest input.
    kind : {"text", "dna"}
        What the rows are.
    store : Path
        Folder of the embeddings, private to its owner; a file that cannot be read is made anew,
        and where none can be written the embeddings are returned all the same.
    progress : callable or None
        Gets a line where rows are to be embedded, one now and then while they are, and one if
        the embeddings are not kept.
    adopted : Adopted or None
        The shared adapter in the base model; None is the frozen base.

    Returns
    -------
    np.ndarray
        float32, (rows, hidden).
    """
    source = resolve(settings.model, kind)
    facts = {
        "model": source.identity,
        "kind": kind,
        "max_tokens": settings.max_tokens,
        **(_adapter_facts(settings, adopted) if adopted else {}),
    }
    path = store / f"{content_key([texts], [np.zeros(0)], facts)}.npz"
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return np.asarray(kept["features"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # absent or broken: embed and keep

    from llm.embedding import embed

    if progress and texts:
        progress(f"{source.short}: embedding {len(texts):,} rows")
    features = embed(texts, settings, kind, progress, adopted)

    try:
        _keep(path, features)
    except OSError as error:
        if progress:
            progress(f"{source.short}: the embeddings are not kept ({error})")
    return features


def _keep(path: Path, features: np.ndarray) -> None:
    def write(file: Path) -> None:
        with file.open("wb") as out:
            np.savez(out, features=features)

    private_folder(path.parent)
    atomic_write(path, write, mode=FILE_MODE)


def _adapter_facts(settings: LlmSettings, adopted: Adopted) -> dict[str, object]:
    """Return what else the features depend on: the adapter, and how it sits in the model.

    Not on `llm.peft`: the base is in float32 here, and all sites draw the same A.
    """
    shape = settings.model_dump(include={"rank", "alpha", "targets", "federated"})
    return {**adopted.facts(), **shape}
