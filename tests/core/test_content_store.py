"""An entry of the content store is whole or absent, private, and no other process's half."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import ContentStore, file_lock


def saved(text: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text[::-1])

    return save


def load(folder: Path) -> str:
    return (folder / "a").read_text()


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "home" / "entries")


def names(store: ContentStore) -> list[str]:
    """Return what lies in a store besides its lock."""
    return sorted(path.name for path in store.folder.iterdir() if path.name != ".lock")


def test_an_entry_is_read_as_written_and_replaced(store: ContentStore) -> None:
    assert store.read("k", load) is None
    assert store.write("k", saved("one")) == store.folder / "k"
    assert store.read("k", load) == "one"
    store.write("k", saved("two"))
    assert (store.read("k", load), store.read("other", load)) == ("two", None)
    assert names(store) == ["k"]


@pytest.mark.parametrize("file", ["a", "b", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "link", "pipe", "folder"])
def test_a_damaged_entry_is_absent_and_can_be_written_anew(
    store: ContentStore, file: str, damage: str
) -> None:
    path = store.write("k", saved("one")) / file
    content = path.read_bytes()
    path.unlink()
    if damage in ("cut", "changed"):
        path.write_bytes(content[:-2] if damage == "cut" else b"x" + content[1:])
    elif damage == "link":
        (store.folder / "elsewhere").write_bytes(content)
        path.symlink_to(store.folder / "elsewhere")
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    assert store.read("k", load) is None
    store.write("k", saved("two"))
    assert store.read("k", load) == "two"


@pytest.mark.parametrize("manifest", ["{}", "[]", '{"files": {}}', '{"files": 3}', '{"files": []}'])
def test_a_manifest_that_lists_no_file_vouches_for_none(store: ContentStore, manifest: str) -> None:
    (store.write("k", saved("one")) / "manifest.json").write_text(manifest)
    assert store.read("k", load) is None


def test_a_file_that_the_manifest_does_not_list_is_not_trusted(store: ContentStore) -> None:
    entry = store.write("k", saved("one"))
    (entry / ".nfs0001").write_text("of the file system")
    assert store.read("k", load) == "one"
    (entry / "c").write_text("foreign")
    assert store.read("k", load) is None


def test_an_entry_under_another_key_is_absent(store: ContentStore) -> None:
    store.write("k", saved("one")).rename(store.folder / "other")
    assert store.read("other", load) is None


@pytest.mark.parametrize("error", [OSError, ValueError, KeyError, EOFError])
def test_what_cannot_be_loaded_counts_as_damaged(
    store: ContentStore, error: type[Exception]
) -> None:
    store.write("k", saved("one"))

    def fails(folder: Path) -> None:
        raise error

    assert store.read("k", fails) is None


def test_a_failed_write_leaves_the_old_entry_and_nothing_else(store: ContentStore) -> None:
    store.write("k", saved("one"))

    def fails(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.write("k", fails)
    assert store.read("k", load) == "one"
    assert names(store) == ["k"]


@pytest.mark.parametrize(("private", "modes"), [(True, (0o700, 0o600)), (False, (0o755, 0o644))])
def test_only_the_owner_may_read_a_private_store(
    tmp_path: Path, private: bool, modes: tuple[int, int]
) -> None:
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries").chmod(0o755)
    entry = ContentStore(tmp_path / "entries", private=private).write("k", saved("one"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (entry, entry / "a")] == list(modes)
    assert stat.S_IMODE(entry.parent.stat().st_mode) == modes[0]


def test_the_newest_entries_of_a_prefix_stay(store: ContentStore) -> None:
    for age, key in enumerate(("x-1", "x-2", "y-1", "x-3")):
        os.utime(store.write(key, saved("one")), (age, age))
    store.keep_newest("x-", 2)
    assert names(store) == ["x-2", "x-3", "y-1"]


def test_files_and_links_in_an_entrys_place_are_removed(store: ContentStore) -> None:
    other = store.write("other", saved("one"))
    (store.folder / "k").write_text("an earlier version's")
    (store.folder / "x-1").write_text("an earlier version's")
    (store.folder / "link").symlink_to(other)
    for key in ("k", "link", "x-2"):
        store.write(key, saved("two"))
    store.keep_newest("x-", 1)
    assert names(store) == ["k", "link", "other", "x-2"]
    assert [store.read(key, load) for key in names(store)] == ["two", "two", "one", "two"]


WRITER = """
import sys
from pathlib import Path
from core import ContentStore

store, mine = ContentStore(Path(sys.argv[1])), sys.argv[2]
def save(folder):
    for name in "ab":
        (folder / name).write_text(mine * 10_000)
print("begun", flush=True)
for _ in range(int(sys.argv[3])):
    store.write("k", save)
    found = store.read("k", lambda f: (f / "a").read_text() + (f / "b").read_text())
    assert found is not None and len(found) == 20_000, found
"""


def test_several_processes_write_and_read_at_once(store: ContentStore) -> None:
    words = [sys.executable, "-c", WRITER, str(store.folder)]
    writers = [subprocess.Popen([*words, name, "40"]) for name in "123"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert (store.read("k", load) or "")[:1] in set("123")
    assert names(store) == ["k"]


def test_a_writer_waits_for_the_lock(store: ContentStore) -> None:
    store.write("other", saved("one"))
    words = [sys.executable, "-c", WRITER, str(store.folder), "1", "1"]
    with file_lock(store.folder / ".lock"):
        writer = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.2)
        assert not (store.folder / "k").exists()
    writer.communicate(timeout=60)
    assert store.read("k", load) == "1" * 10_000


def test_a_killed_writer_leaves_a_whole_entry_or_none_and_no_lock(store: ContentStore) -> None:
    words = [sys.executable, "-c", WRITER, str(store.folder), "1", "100000"]
    for wait in (0.0, 0.01, 0.02):
        with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(wait)
            writer.kill()
        assert store.read("k", load) in (None, "1" * 10_000)
    store.write("k", saved("mine"))
    assert store.read("k", load) == "mine"
