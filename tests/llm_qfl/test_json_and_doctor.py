"""What prints a table prints JSON too; `llm-qfl doctor` and `llm-qfl completion`."""

from __future__ import annotations

import builtins
import json
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core import FIELDS
from llm_qfl.cli import doctor
from llm_qfl.cli.app import COMMANDS, JSON, dispatch
from tests.command import ROOT

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a store of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path / "store"))
    monkeypatch.delenv("HF_HOME", raising=False)
    return tmp_path


def printed(capsys: Captured, *words: str, code: int = 0) -> Any:
    """Run a command; return the one JSON document on its standard output."""
    assert dispatch([*words, "--json"]) == code
    found = capsys.readouterr()
    assert found.err == ""
    return json.loads(found.out)


def test_every_command_with_a_table_has_it() -> None:
    with_json = {name for name, command in COMMANDS.items() if JSON in command.arguments}
    assert with_json == {"audit", "clean", "compare", "cost", "doctor", "jobs", "settings", "study"}
    assert JSON in COMMANDS["deploy"].steps["status"].arguments
    assert any(name == "--json" for name, _ in COMMANDS["run"].arguments)  # of --dry-run


def test_settings(capsys: Captured) -> None:
    assert [one["key"] for one in printed(capsys, "settings")] == list(FIELDS)
    (one,) = printed(capsys, "settings", "run.rounds")
    assert one["default"] == 20
    assert one["accepted"] == "a whole number at least 1"


def test_clean(capsys: Captured, home: Path) -> None:
    assert printed(capsys, "clean")["items"] == []
    (home / "store" / "teachers").mkdir(parents=True)
    (home / "store" / "teachers" / "x").write_text("12345")
    (item,) = printed(capsys, "clean", "--yes")["items"]
    assert item == {"path": str(home / "store" / "teachers"), "bytes": 5}
    assert not (home / "store" / "teachers").exists()


def test_audit(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"agent": "rule", "rounds": [{"differs": ["steps"]}], "damaged": []}
    answer = json.dumps(found)
    monkeypatch.setattr("llm_qfl.cli.commands.call_module", lambda *a, **k: answer)
    assert printed(capsys, "audit", code=1) == found


def test_status_of_a_deployment(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    nothing = {"well": False, "parts": [], "certificate_days_left": {}}
    assert printed(capsys, "deploy", "status", str(home), code=1) == nothing
    part = {"name": "superlink", "well": True, "state": "well", "pid": 1, "port": 2}
    well = {"well": True, "parts": [part], "certificate_days_left": {"x": 3.2}}
    monkeypatch.setattr("llm_qfl.cli.deploy.commands._status", lambda folder: well)
    assert printed(capsys, "deploy", "status", str(home)) == well
    assert dispatch(["deploy", "status", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  superlink      well (process 1, port 2)"
    assert lines[1] == "  certificate of the server: 3 days left"


def test_dry_run(capsys: Captured, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr("llm_qfl.cli.preflight.ask", lambda *a, **k: {"clients": []})
    found = printed(capsys, "run", "--dry-run", "--set", "run.name=mine", "--set", "run.rounds=3")
    wanted = {"run": "mine", "clients": 4, "rounds": 3, "code": [], "found": {"clients": []}}
    assert found == wanted
    assert dispatch(["run", "--json"]) == 2
    assert "--json without --dry-run" in capsys.readouterr().err


def test_doctor_shows_what_is_here_and_no_secret(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "secret-1")
    monkeypatch.setenv("LLM_QFL_AGENT_URL", "http://me:secret-2@x/v1")
    (home / ".qiskit").mkdir()
    saved = {"mine": {"token": "secret-3", "channel": "ibm_quantum_platform"}}
    (home / ".qiskit" / "qiskit-ibm.json").write_text(json.dumps(saved))
    monkeypatch.setattr(doctor, "LEAST_BYTES", 0)
    found = printed(capsys, "doctor")
    assert dispatch(["doctor"]) == 0
    assert "secret" not in json.dumps(found) + capsys.readouterr().out
    assert found["accounts"]["IBM Quantum, saved"] == "mine"
    assert found["accounts"]["agent endpoint"] == "set"
    assert found["versions"]["flwr"] == metadata.version("flwr")
    assert "default.qubit" in found["devices"]["pennylane"]
    assert set(found["extensions"]) == {"ansatz", "agent", "dataset", "aggregation", "model"}
    assert not [one for one in found["missing"] if one["what"] == "IBM Quantum account"]


def test_doctor_finds_a_missing_package_and_names_what_mends_it(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"flwr": "1.30", "rich": "", "llguidance": ""}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: here.get(name, real(name)))
    monkeypatch.setattr(doctor, "LEAST_BYTES", 0)
    found = printed(capsys, "doctor", code=1)
    problems = {one["what"]: one["fix"] for one in found["problems"]}
    assert problems["flwr<1.42,>=1.41 (here: 1.30)"] == "pip install 'flwr[simulation]<1.42,>=1.41'"
    assert problems["rich>=13.9"] == "pip install 'rich>=13.9'"
    missing = {one["what"]: one["fix"] for one in found["missing"]}
    assert missing["llguidance<2,>=1.7"] == "pip install 'llm-qfl[agents]'"


def test_doctor_finds_two_extensions_of_one_name_and_a_full_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def entry(name: str, package: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, value="x:y", dist=SimpleNamespace(name=package))

    declared = {"llm_qfl.agent": [entry("mine", "one"), entry("mine", "two")]}
    monkeypatch.setattr(metadata, "entry_points", lambda group: declared.get(group, []))
    monkeypatch.setattr(doctor, "LEAST_BYTES", 10**18)
    found = doctor.examine()
    whats = [one["what"] for one in found["problems"]]
    assert whats[0] == "agent 'mine' is in one and in two"
    assert len([what for what in whats if " free at " in what]) == 3
    assert found["extensions"]["agent"]["mine"] == "one"


def test_completion_is_a_script_that_bash_reads(capsys: Captured) -> None:
    pytest.importorskip("shtab", reason="the extra completion is not installed")
    for shell in ("zsh", "fish", "bash"):
        assert dispatch(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "doctor" in script
    read = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert read.returncode == 0, read.stderr


def test_completion_without_its_package_is_one_line(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "shtab":
            raise ModuleNotFoundError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert dispatch(["completion", "bash"]) == 2
    assert "pip install 'llm-qfl[completion]'" in capsys.readouterr().err


def test_doctor_knows_what_each_extra_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - {"dev"} == set(doctor.EXTRAS)


def test_the_doctor_shows_what_a_sites_rows_have_spent(home: Path, capsys: Captured) -> None:
    from core.site_ledger import Release, account_file, charge

    path = account_file(home / "store", 3, "ab")
    charge(path, "run", [Release("updates", 2.0, 1)], limit=0, delta=1e-5)
    dispatch(["doctor"])
    assert "client 3, rows ab  epsilon 2.17 at delta 1e-05, in 1 run" in capsys.readouterr().out
