"""What an installation needs and brings: declared packages, extras, a wheel that runs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from core import SettingsError, parse_run
from core.extras import check_extras
from llm_qfl.cli.shipped import APP, config_file
from tests.command import ROOT, llm_qfl

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = (*APP, "llm_qfl", "training")
OURS = {*FOLDERS, "bench"}


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def imported_modules() -> Iterator[tuple[str, Path]]:
    """Yield the top-level name of each import of another project's, functions included."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                for name in {full.partition(".")[0] for full in names} - OURS:
                    if name not in sys.stdlib_module_names:
                        yield name, path


def test_every_imported_package_is_declared() -> None:
    extras = (line for lines in PROJECT["optional-dependencies"].values() for line in lines)
    declared = {name_of(line) for line in [*PROJECT["dependencies"], *extras]}
    distributions = {"mlflow": ["mlflow-skinny"], **metadata.packages_distributions()}
    for module, path in imported_modules():
        names = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        assert names & declared, f"{path}: {module} is not declared in pyproject.toml"


def test_every_required_package_is_imported() -> None:
    distributions = metadata.packages_distributions()
    used = {
        distribution.lower().replace("_", "-")
        for module, _ in imported_modules()
        for distribution in distributions.get(module, [])
    }
    assert {name_of(line) for line in PROJECT["dependencies"]} <= used


def test_the_nine_packages_are_required() -> None:
    required = {name_of(line) for line in PROJECT["dependencies"]}
    nine = "flwr pennylane pennylane-qiskit qiskit-ibm-runtime torch transformers peft"
    assert {*nine.split(), "bitsandbytes", "datasets"} <= required


def test_the_lock_file_pins_what_is_required() -> None:
    lines = (ROOT / "constraints-ci.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    dev = PROJECT["optional-dependencies"]["dev"]
    assert {name_of(line) for line in [*PROJECT["dependencies"], *dev]} <= set(pins)
    assert not any("+" in version or "/" in version for version in pins.values())


@pytest.mark.parametrize(
    ("module", "settings", "extra"),
    [
        ("llguidance", ("agent.kind=llm", "agent.model=x", "agent.decoding=schema"), "agents"),
        ("dp_accounting", ("privacy.dp=central", "aggregation.rule=uniform"), "privacy"),
        ("dp_accounting", ("privacy.moment_noise=1",), "privacy"),
    ],
)
def test_a_missing_extra_is_one_line(
    module: str, settings: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = parse_run([], settings)
    check_extras(given)
    monkeypatch.setattr("core.extras.find_spec", lambda name: None)
    check_extras(parse_run([], [])[0])
    with pytest.raises(SettingsError, match=rf"needs the package .*'llm-qfl\[{extra}\]'"):
        check_extras(given)


@pytest.mark.parametrize("name", ["demo", "demo.toml", "config/demo.toml"])
def test_a_shipped_configuration_is_found_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file(Path(name)) == ROOT / "config" / "demo.toml"
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("")
    assert config_file(Path(name)) == Path(name)


@pytest.mark.parametrize("name", ["absent", "other/demo.toml", "../demo"])
def test_other_names_are_left_alone(name: str) -> None:
    assert config_file(Path(name)) == Path(name)


@pytest.mark.parametrize("package", ["llm", "data", "core"])
def test_a_foreign_package_is_one_line(package: str, tmp_path: Path) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise RuntimeError('not ours')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = llm_qfl(tmp_path, "settings", "run.rounds", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"the package '{package}' in '{tmp_path / package}' is another project's" in done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with our wheel, and with the other packages of this one.

    The latter without what their ``.pth`` files add: no editable installation is among them.
    """
    checkout, wheels, home = (tmp_path_factory.mktemp(name) for name in ("src", "wheel", "env"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in (*APP, "llm_qfl", "config"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", wheels, checkout], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (wheel,) = wheels.glob("*.whl")
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (others,) = {str(metadata.distribution(name).locate_file("")) for name in ("flwr", "torch")}
    (site / "others.pth").write_text(f"{others}\n")
    for script in Path(sys.executable).parent.glob("fl[ow]*"):
        first, _, rest = script.read_text().partition("\n")
        assert first.startswith("#!")
        (home / "bin" / script.name).write_text(f"#!{python}\n{rest}")
        (home / "bin" / script.name).chmod(0o755)
    return home


def command(home: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["LLM_QFL_HOME"] = str(folder / "store")
    return subprocess.run(
        [home / "bin" / "llm-qfl", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo_without_a_checkout(
    installed: Path, tmp_path: Path
) -> None:
    small = ["run.clients=2", "run.rounds=1", "data.train_rows=80", "data.test_rows=40"]
    small += ["data.server_rows=40", "llm.epochs=1", "train.steps=2"]
    words = [word for setting in small for word in ("--set", setting)]
    done = command(installed, tmp_path, "run", "--config", "demo", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "latest"
    assert "<svg" in (folder / "report.html").read_text()
    assert f"{ROOT}/client_app" not in (folder / "logs" / "run.log").read_text()
    assert (folder / "config.json").read_text().count('"unknown"')  # the commit


@pytest.mark.slow
def test_a_package_that_another_wheel_has_overwritten_is_one_line(
    installed: Path, tmp_path: Path
) -> None:
    (ours,) = installed.glob("lib/python*/site-packages/llm/__init__.py")
    text = ours.read_text()
    ours.write_text("raise RuntimeError('not ours')")
    try:
        done = command(installed, tmp_path, "settings")
    finally:
        ours.write_text(text)
    assert done.returncode == 2
    assert done.stderr.startswith("llm-qfl: the package 'llm' in ")
    assert done.stderr.count("\n") == 1
