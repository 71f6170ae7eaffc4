"""`llm-qfl new`: `flwr build`, `llm-qfl run` and its own tests take the project that it makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import uuid
import zipfile
from pathlib import Path

import pytest

from core import FIELDS
from core.settings.reference import BEGIN
from llm_qfl.cli.app import dispatch
from llm_qfl.cli.new import OWN, TEMPLATE
from llm_qfl.cli.processes import TAG, end_all, members
from llm_qfl.cli.superlink import free_port
from tests.command import ROOT, llm_qfl

BESIDE = Path(sys.executable).parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project."""
    monkeypatch.chdir(tmp_path)
    assert dispatch(["new", "my-study"]) == 0
    return tmp_path / "my-study"


def call(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in a folder, with nothing of it on the path but ours."""
    places = {"PYTHONPATH": str(ROOT), "FLWR_HOME": str(folder.parent / "flwr")}
    places["PATH"] = os.pathsep.join([str(BESIDE), os.environ["PATH"]])
    places["LLM_QFL_HOME"] = str(folder.parent / "store")
    environment = {**os.environ, **places, **more}
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_it_makes_each_template_once(project: Path) -> None:
    made = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert made == {
        path.relative_to(TEMPLATE).as_posix().removesuffix(".jinja")
        for path in TEMPLATE.rglob("*.jinja")
    }
    assert {"my_agent.py", "my_ansatz.py", "config.toml", "tests/test_project.py"} <= made


def test_both_ways_to_run_it_have_the_same_settings(project: Path) -> None:
    tables = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    flat = {f"{s}.{k}": value for s, one in tables["config"].items() for k, value in one.items()}
    values = {"run.name": "my-study", **OWN}
    assert flat == {key: values.get(key, field.default) for key, field in FIELDS.items()}
    config = tomllib.loads((project / "config.toml").read_text())
    assert config["agent"]["kind"] == "my_agent:MyAgent"
    assert BEGIN not in (project / "pyproject.toml").read_text()  # nobody is to generate it again


def test_its_python_is_clean(project: Path) -> None:
    rules = ("--isolated", "--select", "E,F,I,B", "--line-length", "100")
    ruff = call(project, "ruff", "check", *rules, ".")
    assert ruff.returncode == 0, ruff.stdout


@pytest.mark.parametrize("name", ["my_study", "9lives", "a" * 33, "../x", "", "-x-"])
def test_a_bad_name_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dispatch(["new", "--", name]) == 2
    assert capsys.readouterr().err.startswith(f"llm-qfl: the name {name!r}; accepted: a letter")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "my_agent.py").write_text("mine")
    assert dispatch(["new", "my-study"]) == 2
    assert "'my-study' is there already" in capsys.readouterr().err
    assert (project / "my_agent.py").read_text() == "mine"


def test_flower_builds_it(project: Path) -> None:
    built = call(project, "flwr", "build")
    assert built.returncode == 0, built.stdout + built.stderr
    (bundle,) = project.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        names = {name for name in archive.namelist() if not name.startswith(".info")}
    assert names == {"pyproject.toml", "my_agent.py", "my_ansatz.py"}


@pytest.mark.slow
def test_its_own_tests_pass(project: Path) -> None:
    tested = call(project, sys.executable, "-m", "pytest", "-q")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.slow
def test_llm_qfl_runs_it(project: Path) -> None:
    small = ("run.clients=2", "run.rounds=2", "train.steps=2", "data.train_rows=80")
    words = [word for setting in small for word in ("--set", setting)]
    store = str(project.parent / "store")
    ran = llm_qfl(project, "run", "--config", "config.toml", *words, LLM_QFL_HOME=store)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 of 2 clients" in ran.stdout  # the agent's own reason, in round 2
    folder = project / "runs" / "latest"
    recorded = json.loads((folder / "config.json").read_text())
    assert sorted(recorded["code"]) == ["my_agent.py", "my_ansatz.py"]
    audited = llm_qfl(project, "audit")
    assert audited.returncode == 0, audited.stdout + audited.stderr


@pytest.mark.skipif("LLM_QFL_REAL" not in os.environ, reason="minutes: make test-deploy runs it")
@pytest.mark.slow
def test_flower_s_own_command_runs_it(project: Path) -> None:
    tag = uuid.uuid4().hex
    results = project.parent / "results"
    small = f"run.rounds=1 train.steps=2 run.report=false run.output='{results}'"
    words = ["flwr", "run", ".", "--stream", "--run-config", small]
    words += ["--federation-config", "num-supernodes=2 client-resources-num-cpus=1"]
    own = {TAG: tag, "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
    own["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] = str(free_port())
    try:
        ran = call(project, *words, **own)
    finally:
        end_all(members(tag), grace=5.0)
    (summary,) = results.glob("*-my-study/summary.json")
    assert json.loads(summary.read_text())["status"] == "completed", ran.stdout[-3000:]
    config = json.loads((summary.parent / "config.json").read_text())
    assert sorted(config["code"]) == ["my_agent.py", "my_ansatz.py"]
    decisions = (summary.parent / "agent.jsonl").read_text()
    assert "2 of 2 clients" in decisions  # the project's own agent decided
