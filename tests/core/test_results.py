from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core import (
    SettingsError,
    append_jsonl,
    atomic_write,
    derive_seed,
    new_run_folder,
    read_json,
    read_jsonl,
    store_root,
    write_json,
    write_once,
    write_text,
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


def test_names_that_are_too_long_and_loops_of_links_are_refused(tmp_path: Path) -> None:
    for name in ("n" * 300, "\u00e9" * 60):
        with pytest.raises(SettingsError, match=r"run.name = .{1,150} at most 100 bytes; choose"):
            new_run_folder(tmp_path, name)
    assert new_run_folder(tmp_path, "n" * 100).is_dir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SettingsError, match=r"run.output = '.*loop' \(Too many levels of symb"):
        new_run_folder(tmp_path / "loop", "demo")
    with pytest.raises(SettingsError, match=r"run.output = .*null byte"):
        new_run_folder(tmp_path / "\0", "demo")


def test_only_a_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text('{"a":' * 3000 + "1" + "}" * 3000)
    for name in ("pipe", "deep", "nowhere", ""):
        assert read_json(tmp_path / name) == {}
        assert list(read_jsonl(tmp_path / name)) == []


def test_a_file_is_written_once(tmp_path: Path) -> None:
    write_once(tmp_path / "key", b"one")
    with pytest.raises(FileExistsError, match=r"key"):
        write_once(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


FULL = """
import resource, sys
from pathlib import Path
from core import append_jsonl, write_bytes, write_once, write_text

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder, long = Path(sys.argv[1]), "x" * 5000
tries = {
    "lines.jsonl": lambda path: append_jsonl(path, {"a": long}),
    "text": lambda path: write_text(path, long),
    "once": lambda path: write_once(path, long.encode()),
}
for name, write in tries.items():
    try:
        write(folder / name)
    except OSError as error:
        print(error.strerror, error.filename)
"""


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stops a write in its middle, as a full disk does."""
    append_jsonl(tmp_path / "lines.jsonl", {"a": 1})
    write_text(tmp_path / "text", "old")
    words = [sys.executable, "-c", FULL, str(tmp_path)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    names = ("lines.jsonl", "text", "once")
    assert lines == [f"File too large {tmp_path / name}" for name in names]
    assert (tmp_path / "lines.jsonl").read_text() == '{"a": 1}\n'
    assert (tmp_path / "text").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.jsonl", "text"]
