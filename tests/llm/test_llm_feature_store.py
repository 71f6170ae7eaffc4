from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import llm
from federation import LlmSettings

ROWS = ("ACGTACGTACGTAA", "GGGGCCCCTTAA", "ACGTTTTTTTTGGC")


def test_a_text_is_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LlmSettings()
    first = llm.stored_embedding(ROWS, settings, "dna", tmp_path)
    np.testing.assert_array_equal(first, llm.embed(ROWS, settings, "dna"))

    def never(*_: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr("llm.embedding.embed", never)
    np.testing.assert_array_equal(first, llm.stored_embedding(ROWS, settings, "dna", tmp_path))
    with pytest.raises(AssertionError, match="embedded again"):
        llm.stored_embedding(ROWS[:2], settings, "dna", tmp_path)


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    first = llm.stored_embedding(ROWS, LlmSettings(), "dna", tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(first, llm.stored_embedding(ROWS, LlmSettings(), "dna", tmp_path))
