"""The examples run as they are, and the pages quote them exactly."""

from __future__ import annotations

import json
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


RUNNER = """
import json, os, pathlib, runpy, sys, traceback

failed = {}
for path in json.loads(sys.argv[1]):
    folder = pathlib.Path(path).stem
    os.mkdir(folder)
    os.chdir(folder)
    try:
        runpy.run_path(path, run_name="__main__")
    except BaseException:
        failed[path] = traceback.format_exc()
    os.chdir("..")
pathlib.Path("failed.json").write_text(json.dumps(failed))
"""
"""Runs each example in an empty folder; in one process, so that libraries are imported once."""


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run all examples; return the tracebacks of those that fail, by path."""
    folder = tmp_path_factory.mktemp("examples")
    environment = {**os.environ, "LLM_QFL_HOME": str(folder / "store"), "MPLBACKEND": "Agg"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    runnable = [str(path) for path in EXAMPLES if not lacks(path)]
    words = [sys.executable, "-c", RUNNER, json.dumps(runnable)]
    ran = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return dict(json.loads((folder / "failed.json").read_text()))


def lacks(example: Path) -> str:
    """Return the package that an example needs and that is not installed; empty: none."""
    package = NEEDS.get(example.name, "")
    return package if package and not find_spec(package) else ""


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_in_an_empty_folder(example: Path, failures: dict[str, str]) -> None:
    if package := lacks(example):
        pytest.skip(f"{package} is not installed")
    assert str(example) not in failures, failures[str(example)]
