"""Which raw features a data set gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from core import FeatureSettings, SettingsError
from data import feature_kind, kmer_frequencies, raw_features

ROWS = ("ACGTAC", "GGGTTA")


def embed(texts: Sequence[str]) -> np.ndarray:
    return np.full((len(texts), 7), 0.5, dtype=np.float32)


def refuse(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("embedded")


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ("dna", "auto", "kmer"),
        ("dna", "kmer", "kmer"),
        ("dna", "embedding", "embedding"),
        ("text", "auto", "embedding"),
        ("text", "embedding", "embedding"),
    ],
)
def test_kind_of_the_features(
    kind: Literal["text", "dna"], asked: Literal["auto", "kmer", "embedding"], expected: str
) -> None:
    settings = FeatureSettings(kind=asked, k=2)
    assert feature_kind(kind, settings) == expected
    if expected == "kmer":
        found = raw_features(ROWS, kind, settings, refuse)
        np.testing.assert_array_equal(found, kmer_frequencies(ROWS, 2))
    else:
        assert raw_features(ROWS, kind, settings, embed).shape == (2, 7)


def test_texts_have_no_kmers() -> None:
    settings = FeatureSettings(kind="kmer")
    message = r"features.kind = kmer with data of kind text; accepted: embedding or auto for texts"
    with pytest.raises(SettingsError, match=message):
        feature_kind("text", settings)
    with pytest.raises(SettingsError, match=message):
        raw_features(ROWS, "text", settings, refuse)
