"""Stored embeddings: computed once, private, and optional where the disk cannot be written."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

import llm
from core import LlmSettings

ROWS = ("ACGTACGTACGTAA", "GGGGCCCCTTAA", "ACGTTTTTTTTGGC")


def test_a_text_is_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LlmSettings()
    lines: list[str] = []
    first = llm.stored_embedding(ROWS, settings, "dna", tmp_path, lines.append)
    np.testing.assert_array_equal(first, llm.embed(ROWS, settings, "dna"))
    lines.clear()

    def never(*_: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr("llm.checked.CheckedModel.embed", never)
    again = llm.stored_embedding(ROWS, settings, "dna", tmp_path, lines.append)
    np.testing.assert_array_equal(first, again)
    assert not lines
    with pytest.raises(AssertionError, match="embedded again"):
        llm.stored_embedding(ROWS[:2], settings, "dna", tmp_path)


def test_a_broken_file_is_made_again(tmp_path: Path) -> None:
    first = llm.stored_embedding(ROWS, LlmSettings(), "dna", tmp_path)
    (file,) = tmp_path.glob("*/features.npz")
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(first, llm.stored_embedding(ROWS, LlmSettings(), "dna", tmp_path))


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    store = tmp_path / "new" / "features"
    llm.stored_embedding(ROWS, LlmSettings(), "dna", store)
    (file,) = store.glob("*/features.npz")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (store.parent, store, file)]
    assert modes == [0o700, 0o700, 0o600]


def test_an_older_open_folder_is_closed_and_the_users_own_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store = tmp_path / "features"
    store.mkdir()
    store.chmod(0o755)
    llm.stored_embedding(ROWS, LlmSettings(), "dna", store)
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_store_that_cannot_be_written_is_reported_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    lines: list[str] = []
    found = llm.stored_embedding(ROWS, LlmSettings(), "dna", file / "features", lines.append)
    np.testing.assert_array_equal(found, llm.embed(ROWS, LlmSettings(), "dna"))
    start, line = lines
    assert start == "dna-tiny: embedding 3 rows"
    assert "dna-tiny: the embeddings are not stored (" in line
