"""A user's mistake is one line and exit code 2, before anything is started or written."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import llm_qfl.cli.run
from llm_qfl.cli import main
from tests.command import ROOT


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(llm_qfl.cli.run, "launch", started)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--set", "run.round=3"], "unknown setting 'run.round'.*did you mean 'run.rounds'"),
        (["--set", "run.rounds=three"], "run.rounds = 'three'; accepted: a whole number"),
        (["--set", "run.rounds=0"], "run.rounds = 0; accepted: a whole number at least 1"),
        (["--set", "rounds"], "accepted: key=value"),
        (["--set", "train.mu=2"], "train.mu = 2.0 would be ignored"),
        (["--config", "absent.toml"], "no config file 'absent.toml'"),
        (["--set", "data.source=csv", "--set", "data.path=no.csv"], "data.path = .*does not exist"),
        (["--set", "data.source=csv", "--set", "data.path=~who-is-it"], "/~who-is-it' does not"),
        (["--set", 'run.folder="a\\u0000b"'], "run.folder = .*accepted: a path"),
        (
            ["--set", "data.source=csv", "--set", "data.path=" + "x" * 5000],
            "data.path = .*does not exist",
        ),
        (["--name", "../x"], "run.name = '../x'; accepted: letters"),
    ],
)
def test_one_line_and_exit_code_2(
    words: list[str], printed: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("llm-qfl: ")
    import re

    assert re.search(printed, shown.err)
    assert list(tmp_path.iterdir()) == []


def test_a_results_folder_in_use_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "summary.json").write_text("{}")
    assert main(["run", "--set", "run.folder=old"]) == 2
    assert "accepted: a new or empty folder" in capsys.readouterr().err


def test_a_results_folder_below_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for setting in ("run.folder=file", "run.folder=file/x", "run.output=file/x"):
        assert main(["run", "--set", setting]) == 2
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1
        assert "accepted: a" in shown.err


@pytest.mark.parametrize("key", ["run.folder", "run.output"])
def test_a_results_folder_that_may_not_be_written_is_one_line(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["run", "--set", f"{key}=out"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert f"{key} = " in shown.err
    assert "(Permission denied); accepted: a folder that can be" in shown.err


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(["clean"]) == 1
    shown = capsys.readouterr().err
    assert shown == f"llm-qfl: cannot use {str(tmp_path)!r}: Permission denied\n"


def test_a_broken_config_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[run\n")
    assert main(["run", "--config", "a.toml"]) == 2
    assert "'a.toml' is not TOML" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "run a federation and follow it" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("llm-qfl 0.")


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, llm_qfl.cli.app; llm_qfl.cli.app.make_parser().format_help();"
        "print([m for m in ('torch', 'flwr', 'pydantic', 'rich', 'numpy') if m in sys.modules])"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - began < 5.0


def test_settings_explains_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "train.mu"]) == 0
    shown = capsys.readouterr().out
    assert "train.mu = 1.0" in shown
    assert "Takes: a number above 0." in shown
    assert 'Used when train.schedule is "inverse-time".' in shown


def test_settings_lists_a_section_and_everything(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings", "stop"])
    section = capsys.readouterr().out
    assert "stop.patience = 3" in section
    assert "run.rounds" not in section
    main(["settings"])
    everything = capsys.readouterr().out
    assert "run.rounds = 20" in everything
    assert max(map(len, everything.splitlines())) <= 100


def test_settings_names_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "run.cleints"]) == 2
    assert "did you mean 'run.clients'?" in capsys.readouterr().err


def test_report_refuses_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    (tmp_path / "loop").symlink_to("loop")
    for place in ("~who-is-it", "x" * 5000, "loop"):
        assert main(["report", place]) == 2
        assert capsys.readouterr().err.count("\n") == 1
