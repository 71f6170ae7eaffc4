"""What Flower sends to every node with each run: the packages that it needs, and nothing else."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from llm_qfl.cli.shipped import app_folder
from tests.command import ROOT

PACKAGES = (
    "client_app",
    "core",
    "data",
    "llm",
    "quantum",
    "reporting",
    "server_app",
    "strategies",
)
BESIDE = {"pyproject.toml", "LICENSE"}


def files_of(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def build(app: Path) -> bytes:
    """Build the bundle of an app's folder, as `flwr run` does."""
    code = (
        "import pathlib, sys; from flwr.cli.build import build_fab_from_disk\n"
        "sys.stdout.buffer.write(build_fab_from_disk(pathlib.Path(sys.argv[1])))"
    )
    made = subprocess.run([sys.executable, "-c", code, app], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return made.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Build it from a checkout in which private rows lie about."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*PACKAGES, "bench", "docs"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, checkout)
    for name in (
        "rows.jsonl",
        "data/rows.json",
        "data/rows.jsonl",
        "notes.md",
        "client_app/x.yaml",
    ):
        (checkout / name).write_text("{}", encoding="utf-8")
    return build(checkout)


def test_all_that_runs_and_nothing_beside_it(bundle: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        sent = {name for name in archive.namelist() if not name.startswith(".info")}
    assert sent == BESIDE.union(*(files_of(package) for package in PACKAGES))


def test_both_apps_load_from_it_alone(bundle: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path = ['.', *(p for p in sys.path if 'lib' in p)]\n"
        "import client_app.app, client_app.work, server_app.app, server_app.run, data, pathlib\n"
        "home = pathlib.Path.cwd().resolve()\n"
        "parts = [client_app, server_app, data]\n"
        "assert all(home in pathlib.Path(p.__file__).resolve().parents for p in parts)\n"
        "from llm.sources import resolve; resolve('dna-tiny', 'dna')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_it_is_of_the_format_that_flower_publishes(bundle: bytes) -> None:
    """Flower itself reads it back: format 1 needs a licence's file and a version of Flower."""
    code = (
        "import dataclasses, json, sys\n"
        "from flwr.common.config import get_fab_config\n"
        "from flwr.supercore.fab_format_version import normalize_and_validate_fab_format as read\n"
        "config = get_fab_config(sys.stdin.buffer.read())\n"
        "print(json.dumps([config['project'], dataclasses.asdict(read(config))]))"
    )
    read = subprocess.run([sys.executable, "-c", code], input=bundle, capture_output=True)
    assert read.returncode == 0, read.stderr[-2000:]
    project, found = json.loads(read.stdout)
    assert found["fab_format_version"] == 1
    assert found["flwr_version_min"] == "1.41"
    assert version("flwr").startswith(found["flwr_version_target"].rpartition(".")[0])
    assert 0 < len(project["description"]) <= 200  # what Flower's hub takes


def test_files_of_the_user_s_own_are_in_it(tmp_path: Path) -> None:
    for name in ("my_agent.py", "mine/__init__.py", "mine/table.json", "other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files = {n: tmp_path / n for n in ("my_agent.py", "mine/__init__.py", "mine/table.json")}
    app = app_folder(tmp_path / "launch", files)
    with zipfile.ZipFile(io.BytesIO(build(app))) as archive:
        sent = {name for name in archive.namelist() if not name.startswith(".info")}
    assert sent == BESIDE.union(files, *(files_of(package) for package in PACKAGES))


def test_flower_is_given_no_folder_that_it_would_search_for_seconds(
    tmp_path: Path, bundle: bytes
) -> None:
    app = app_folder(tmp_path, {})
    assert {path.name for path in app.iterdir()} == {*BESIDE, *PACKAGES}  # no .venv, no .git
    assert build(app) == bundle


def test_flower_s_hub_would_take_the_checkout(tmp_path: Path) -> None:
    """Flower's own checks before an upload: number, size, depth and text of the files."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    code = (
        "import importlib, pathlib, sys\n"
        "publish = importlib.import_module('flwr.cli.app_cmd.publish')\n"
        "publish._validate_files(publish._collect_file_paths(pathlib.Path(sys.argv[1])))"
    )
    checked = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr[-2000:]
