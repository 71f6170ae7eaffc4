"""The examples run as they are, and the pages quote them exactly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.command import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"track.py": "tensorboard"}
"""Packages that an example needs besides ours."""

BLOCK = re.compile(r"^```python\n(# examples/(\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTES = [
    (page, name, text)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for text, name in BLOCK.findall(page.read_text("utf-8"))
]


@pytest.mark.parametrize(
    ("page", "name", "text"), QUOTES, ids=[f"{page.stem}-{name}" for page, name, _ in QUOTES]
)
def test_a_page_quotes_its_example_exactly(page: Path, name: str, text: str) -> None:
    assert text == (ROOT / "examples" / name).read_text("utf-8")
    assert len(text.splitlines()) <= 30


def test_every_example_is_on_a_page() -> None:
    assert {path.name for path in EXAMPLES} == {name for _, name, _ in QUOTES}


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_in_an_empty_folder(example: Path, tmp_path: Path) -> None:
    if (package := NEEDS.get(example.name)) and not find_spec(package):
        pytest.skip(f"{package} is not installed")
    environment = {**os.environ, "LLM_QFL_HOME": str(tmp_path / "store"), "MPLBACKEND": "Agg"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    (tmp_path / "here").mkdir()
    ran = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
