from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from federation import (
    SettingsError,
    append_jsonl,
    atomic_write,
    derive_seed,
    new_run_folder,
    read_jsonl,
    store_root,
    write_json,
)


def test_folders_are_new_and_latest_follows(tmp_path: Path) -> None:
    one, two = new_run_folder(tmp_path, "demo"), new_run_folder(tmp_path, "demo")
    assert one != two
    assert one.is_absolute()
    assert (tmp_path / "latest").resolve() == two


def test_a_plain_file_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("mine")
    new_run_folder(tmp_path, "demo")
    assert (tmp_path / "latest").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"run\.name = "):
        new_run_folder(tmp_path, name)


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SettingsError, match=r"run.output = '.*file'"):
        new_run_folder(blocked, "demo")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def fails(file: Path) -> None:
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, fails)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_numbers_become_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {1: np.float32(0.5), "n": [math.nan, math.inf], "a": np.arange(2)})
    assert json.loads(path.read_text()) == {"1": 0.5, "n": [None, None], "a": [0, 1]}


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert list(read_jsonl(path)) == []
    append_jsonl(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"b": ')
    assert list(read_jsonl(path)) == [{"a": 1}]


def test_store_is_the_setting_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_QFL_HOME", "/somewhere")
    assert store_root("") == Path("/somewhere")
    assert store_root("/else") == Path("/else")
    monkeypatch.delenv("LLM_QFL_HOME")
    assert store_root("") == Path.home() / ".cache" / "llm-qfl"


def test_seeds_are_stable_and_differ_by_purpose() -> None:
    assert derive_seed(0, "train", 1, 2) == derive_seed(0, "train", 1, 2)
    drawn = {derive_seed(s, "train", c, r) for s in range(3) for c in range(9) for r in range(9)}
    assert len(drawn) == 3 * 81
