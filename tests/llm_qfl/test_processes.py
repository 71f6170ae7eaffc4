"""Our processes are found again and ended, and nobody else's are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import llm_qfl.cli.commands
from core import open_store
from core.storage.content_store import NAMES, OWNERS
from llm_qfl.cli import main
from llm_qfl.cli.processes import TAG, alive, end_all, members, wait_for
from llm_qfl.cli.superlink import free_port, healthy, private_folder

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

DETACHED = """
import subprocess, sys
code = "import time; time.sleep(60)"
quiet = subprocess.DEVNULL
command = [sys.executable, "-c", code]
child = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
print(child.pid, flush=True)
"""


def test_descendants_are_found_over_generations() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        try:
            assert wait_for(lambda: len(members("nobody", [parent.pid])) == 2, 20.0)
        finally:
            assert end_all(members("nobody", [parent.pid]), grace=2.0) == set()
    assert members("nobody", [parent.pid]) == set()


@linux
def test_an_orphan_in_its_own_session_is_found_by_its_tag() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DETACHED],
        env={**os.environ, TAG: "orphan-test"},
        capture_output=True,
        text=True,
        check=True,
    )
    orphan = int(done.stdout)
    found = members("orphan-test")
    assert orphan in {process.pid for process in found}
    assert end_all(found, grace=2.0) == set()
    assert not any(map(alive, found))


@linux
def test_a_process_that_will_not_end_is_made_to() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end_all({psutil.Process(process.pid)}, grace=0.3) == set()
        assert process.wait() == -signal.SIGKILL


def test_this_process_is_never_among_them() -> None:
    assert os.getpid() not in {process.pid for process in members("nobody", [os.getpid()])}


def test_waiting_has_an_end() -> None:
    began = time.monotonic()
    assert not wait_for(lambda: False, 0.2, 0.05)
    assert time.monotonic() - began < 2.0
    assert wait_for(lambda: True, 0.0)


def test_nothing_is_healthy_on_a_free_port() -> None:
    assert not healthy(free_port())


def test_clean_lists_and_then_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    (store / "teachers").mkdir(parents=True)
    (store / "teachers" / "a.safetensors").write_bytes(b"0" * 2_500_000)
    monkeypatch.setenv("LLM_QFL_HOME", str(store))
    monkeypatch.setattr(llm_qfl.cli.commands, "leftovers", lambda: iter(()))
    assert main(["clean"]) == 0
    assert "2.5 MB  " + str(store / "teachers") in capsys.readouterr().out
    assert (store / "teachers").exists()
    assert main(["clean", "--yes"]) == 0
    assert "1 item; removed" in capsys.readouterr().out
    assert list(store.iterdir()) == []
    main(["clean"])
    assert "nothing of ours is kept" in capsys.readouterr().out


def test_clean_leaves_alone_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody sets LLM_QFL_HOME to a folder of other things, some with names like ours."""
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    monkeypatch.setattr(llm_qfl.cli.commands, "leftovers", lambda: iter(()))
    for theirs in ("photos", "features"):
        (tmp_path / theirs).mkdir()
        (tmp_path / theirs / "dear.txt").write_text("theirs")
    assert main(["clean", "--yes"]) == 0
    assert "nothing of ours" in capsys.readouterr().out
    assert open_store() == tmp_path
    (tmp_path / "teachers").mkdir()
    (tmp_path / "rows.key").write_text("ours")
    assert open_store() == tmp_path  # by another process: the first one's list stays
    (tmp_path / "later").write_text("theirs")
    assert main(["clean", "--yes"]) == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["features", "later", "photos"]
    assert (tmp_path / "features" / "dear.txt").read_text() == "theirs"


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"not_ours": 3}'])
def test_clean_with_a_damaged_list_takes_nothing_that_may_be_anothers(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path))
    monkeypatch.setattr(llm_qfl.cli.commands, "leftovers", lambda: iter(()))
    for theirs in ("photos", "features"):
        (tmp_path / theirs).mkdir()
    (open_store() / OWNERS).write_text(damaged)
    for _ in range(2):
        assert main(["clean", "--yes"]) == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["features", "photos"]


def test_a_new_store_is_its_owners_and_all_of_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_qfl.cli.commands, "leftovers", lambda: iter(()))
    monkeypatch.setenv("LLM_QFL_HOME", str(tmp_path / "a" / "b"))
    place = open_store()
    assert place.stat().st_mode & 0o777 == 0o700
    for name in NAMES:
        (place / name).write_text("")
    assert main(["clean", "--yes"]) == 0
    assert list(place.iterdir()) == []


def test_a_dead_launchs_folder_is_a_leftover_a_live_ones_is_not(tmp_path: Path) -> None:
    for name, content in (
        ("llm-qfl-dead", "999999999 some-tag"),
        ("llm-qfl-live", f"{os.getpid()} other-tag"),
        ("llm-qfl-strange", "not ours"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "launch").write_text(content)
    (tmp_path / "llm-qfl-empty").mkdir()
    assert list(llm_qfl.cli.commands.leftovers(tmp_path)) == [
        (tmp_path / "llm-qfl-dead", "some-tag")
    ]


def test_a_private_folder_is_private_and_says_whose_it_is() -> None:
    import shutil

    folder = private_folder("my-tag")
    try:
        assert folder.stat().st_mode & 0o077 == 0
        assert list((folder / "empty").iterdir()) == []
        assert (folder / "launch").read_text() == f"{os.getpid()} my-tag"
        assert len(str(folder)) < 40
    finally:
        shutil.rmtree(folder)
