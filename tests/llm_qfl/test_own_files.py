"""A data set of the user's own file, through the launcher: in simulation and on a deployment."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from core import Settings
from llm_qfl.cli.plan import Plan, _with_changed_files
from tests.command import llm_qfl, sets

DATA = """
import random
from data import Dataset
from own_letters import LETTERS

def sequences(settings, seed):
    draw = random.Random(seed)
    def rows(count):
        labels = [draw.choice(sorted(LETTERS)) for _ in range(count)]
        return ["".join(draw.choices(LETTERS[kind], k=60)) for kind in labels], labels
    return Dataset(rows(80), rows(40), rows(40), kind="dna")
"""
LETTERS = 'LETTERS = {"at-rich": "AAATTTCG", "gc-rich": "GGGCCCAT"}\n'
GIVEN = ("data.source=own_data:sequences", "run.clients=2")
SMALL = ("run.rounds=1", "llm.epochs=1", "train.steps=2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a user with a data set in two files."""
    (tmp_path / "own_data.py").write_text(DATA)
    (tmp_path / "own_letters.py").write_text(LETTERS)
    return tmp_path


def test_a_dry_run_lists_them(folder: Path) -> None:
    dry = llm_qfl(folder, "run", "--dry-run", *sets(*GIVEN))
    assert dry.returncode == 0, dry.stderr
    for name in ("own_data.py", "own_letters.py"):
        assert f"code     {name} of yours travels to every site" in dry.stdout
    assert "classes  2: at-rich, gc-rich" in dry.stdout


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("import nothing_there", "own_data.py, line 1 raises ModuleNotFoundError"),
        ("def sequences(:", "own_data.py, line 1 raises SyntaxError"),
        ("x = 1", "own_data.py has no 'sequences'"),
        ("def sequences(settings, seed): return 7", "own_data"),
        ("def sequences(settings, seed):\n    return 1 / 0", "own_data.py, line 2 raises"),
    ],
)
def test_a_bad_file_is_one_line_before_anything_starts(
    text: str, printed: str, folder: Path
) -> None:
    (folder / "own_data.py").write_text(text)
    before = sorted(folder.iterdir())
    done = llm_qfl(folder, "run", *sets(*GIVEN))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert printed in line
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.slow
@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
def test_they_travel_in_a_simulation(folder: Path) -> None:
    ran = llm_qfl(folder, "run", *sets(*GIVEN, *SMALL), LLM_QFL_HOME=str(folder / "store"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "at-rich, gc-rich" in ran.stdout
    recorded = json.loads((folder / "runs" / "latest" / "config.json").read_text())
    assert recorded["code"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("own_data.py", "own_letters.py")
    }


@pytest.mark.slow
@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_they_travel_to_a_deployment_whose_nodes_may_refuse_them(folder: Path) -> None:
    given = sets(*GIVEN[:1], *SMALL)
    try:
        up = llm_qfl(folder, "deploy", "up", "fed", "--nodes", "2", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        ran = llm_qfl(folder, "run", "--on", "fed", *given)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "at-rich, gc-rich" in ran.stdout
        assert llm_qfl(folder, "deploy", "stop", "fed").returncode == 0

        node = folder / "fed" / "node-1" / "node.toml"
        node.write_text(node.read_text() + "run.allow_code = false\n")
        assert llm_qfl(folder, "deploy", "up", "fed", "--detach").returncode == 0
        refused = llm_qfl(folder, "run", "--on", "fed", *given)
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert "run.allow_code = false" in line
        assert "Traceback" not in refused.stdout
    finally:
        assert llm_qfl(folder, "deploy", "stop", "fed").returncode == 0


def test_a_run_that_goes_on_says_which_files_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(Settings(), {}, {}, ("first",))
    monkeypatch.setattr("llm_qfl.cli.plan.digests", lambda settings: {"a.py": "1", "b.py": "2"})
    assert _with_changed_files(plan, {"a.py": "1"}) is plan
    first, notice = _with_changed_files(plan, {"a.py": "0", "b.py": "2", "c.py": "3"}).notices
    assert first == "first"
    assert notice.startswith("a.py, c.py: not what the run began with")
