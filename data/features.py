"""Raw features of rows: what is projected to the qubits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from core import FeatureSettings, SettingsError
from data.kmers import kmer_frequencies

Kind = Literal["text", "dna"]
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Embeds texts with the frozen base language model: (rows, hidden)."""


def feature_kind(kind: Kind, settings: FeatureSettings) -> Literal["kmer", "embedding"]:
    """Return which raw features a data set of this kind gets.

    Raises
    ------
    SettingsError
        For k-mers of texts.
    """
    if settings.kind == "kmer" and kind == "text":
        raise SettingsError(
            "features.kind = kmer with data of kind text",
            "embedding or auto for texts; kmer for DNA",
            "set features.kind = auto, or data.kind = dna if the rows are sequences",
        )
    if settings.kind != "auto":
        return settings.kind
    if settings.encoder == "shared":
        return "embedding"
    return "kmer" if kind == "dna" else "embedding"


def raw_features(
    texts: Sequence[str], kind: Kind, settings: FeatureSettings, embed: Embed
) -> npt.NDArray[np.float32]:
    """Return the raw features of rows.

    Parameters
    ----------
    texts : sequence of str
        Rows.
    kind : str
        ``text`` or ``dna``.
    settings : FeatureSettings
        Which features.
    embed : callable
        The frozen base model's embedding; called only for embedding features.

    Returns
    -------
    array of float32, shape (rows, d)
        k-mer frequencies or embeddings.

    Raises
    ------
    SettingsError
        As `feature_kind`.
    """
    if feature_kind(kind, settings) == "kmer":
        return kmer_frequencies(texts, settings.k)
    return embed(texts)
