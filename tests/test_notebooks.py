"""The notebooks run from top to bottom, and are committed with what they print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def read(path: Path) -> Any:
    return pytest.importorskip("nbformat").read(path, as_version=4)


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["own_circuit_and_agent", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_its_outputs_and_nothing_of_a_machine(path: Path) -> None:
    book = read(path)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    printed = [str(output) for cell in code for output in cell.outputs]
    assert len(printed) >= 4
    assert not [text for text in printed if "/tmp/" in text or "/home/" in text]
    assert not [text for text in printed if "Warning" in text or "Error" in text]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path / "store"))
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    where = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(read(path), timeout=600, resources=where).execute()
    assert (tmp_path / "runs" / "latest" / "summary.json").exists()
