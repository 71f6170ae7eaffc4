"""The content store: a folder of files for each key, whole or absent; and where a site's lies.

Fine-tuned models, features, a site's arrays and a run's checkpoints are all in it. An entry is
written into a hidden folder beside its place and renamed, so a process that is killed leaves the
old entry or none. ``manifest.json`` lists the sha256 of the entry's other files. One that does not
match, is a link or is not listed makes the entry damaged. It then counts as absent and is written
again. Callers choose keys that contain everything on which the content depends.

A user may set ``LLM_QFL_HOME`` to a folder that holds other things. On first use the store
therefore notes what lay there before under a name that it uses itself. `llm-qfl clean` removes
what has such a name and was not there before, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from core.storage.files import file_lock, read_json, sync_folder, write_once

STORE_VARIABLE = "LLM_QFL_HOME"

NAMES = (
    *("circuits", "compiled", "features", "jobs.sqlite", "least-busy"),
    *("models", "rounds", "rows.key", "secure", "teachers"),
)
"""What the parts of this project make in a site's store."""

OWNERS = "llm-qfl-store.json"
"""File of a site's store that lists what lay there before it."""

KEY_FILE = "rows.key"
"""File of a site's store with its secret."""

MANIFEST = "manifest.json"
_LOCK = ".lock"
_BESIDE_JOBS = ("jobs.sqlite-wal", "jobs.sqlite-shm", "jobs.sqlite-journal")
_DAMAGED = (
    *(OSError, EOFError, zipfile.BadZipFile),
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
)

T = TypeVar("T")


class ContentStore:
    """Folders of files by key.

    Parameters
    ----------
    folder : Path
        Where the entries lie; made when the first is written.
    private : bool
        Whether only the owner may read it and several processes may write to it, as in a site's
        store. Otherwise everybody may read it, and it has one writer, as a run folder has.
    """

    def __init__(self, folder: Path, *, private: bool = True) -> None:
        self.folder = folder
        self.private = private

    def read(self, key: str, load: Callable[[Path], T]) -> T | None:
        """Return what `load` makes of an entry's folder; None if it is absent or damaged.

        Parameters
        ----------
        key : str
            The entry's.
        load : callable
            Reads the folder's files. Its OSError, ValueError, KeyError, TypeError and those of
            a damaged archive count as damage.
        """
        found = self._read(key, load)
        if found is None and self.private and (self.folder / _LOCK).exists():
            # It may be moving into place just now: under the lock it is there or absent.
            with contextlib.suppress(OSError), self._lock():
                found = self._read(key, load)
        return found

    def _read(self, key: str, load: Callable[[Path], T]) -> T | None:
        folder = self.folder / key
        try:
            with _open(folder / MANIFEST) as file:
                manifest = json.load(file)
            files = manifest["files"]
            there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
            whole = there == {MANIFEST, *files} and manifest.get("key", key) == key
            same = (_digest(folder / name) == digest for name, digest in files.items())
            return load(folder) if whole and all(same) else None
        except _DAMAGED:
            return None

    def write(self, key: str, save: Callable[[Path], object]) -> Path:
        """Write or replace an entry; a reader sees all of it or nothing.

        Parameters
        ----------
        key : str
            A plain file name that contains, or is a digest of, what the content depends on.
        save : callable
            Writes the files into the empty folder that it is given.

        Returns
        -------
        Path
            The entry's folder.

        Raises
        ------
        OSError
            If it cannot be written; what was there is then still there.
        """
        if self.private:
            private_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / key
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))
        old = draft.with_name(f".old{draft.name}")
        try:
            save(draft)
            files = {path.name: _digest(path) for path in sorted(draft.iterdir())}
            manifest = json.dumps({"key": key, "files": files}, indent=1)
            (draft / MANIFEST).write_text(manifest + "\n", encoding="utf-8")
            for path in draft.iterdir():
                path.chmod(0o600 if self.private else 0o644)
                if not self.private:  # an entry that a power cut damages is only made again
                    _sync(path)
            draft.chmod(0o700 if self.private else 0o755)
            with self._lock():
                if os.path.lexists(target):
                    target.rename(old)
                draft.rename(target)
            if not self.private:
                sync_folder(self.folder)
        finally:
            _remove(draft)
            _remove(old)
        return target

    def keep_newest(self, prefix: str, most: int) -> None:
        """Remove all but the newest entries whose keys begin with a prefix."""
        with self._lock():
            found = sorted(self.folder.glob(f"{prefix}*"), key=lambda path: path.lstat().st_mtime)
            for path in found[:-most]:
                _remove(path)

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return file_lock(self.folder / _LOCK) if self.private else contextlib.nullcontext()


def _open(path: Path) -> BufferedReader:
    """Open a file for reading; a link is refused, and a pipe does not block."""
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _remove(path: Path) -> None:
    """Remove a folder; or a file, such as an earlier version's entry, or a link."""
    with contextlib.suppress(OSError):
        path.unlink()  # of a folder it fails
    shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_root(store: str = "") -> Path:
    """Return the folder of a site's store.

    Parameters
    ----------
    store : str
        `llm.store`; empty: ``LLM_QFL_HOME`` of the environment, else ``llm-qfl`` in the user's
        cache folder.
    """
    home = store or os.environ.get(STORE_VARIABLE, "")
    if home:
        return Path(os.path.expanduser(home))
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llm-qfl"


def open_store(store: str = "") -> Path:
    """Return the folder of a site's store, made and marked as ours if it can be.

    Parameters
    ----------
    store : str
        As for `store_root`.
    """
    place = store_root(store)
    with contextlib.suppress(OSError):  # whoever writes into it reports what is wrong
        if not (place / OWNERS).exists():
            if not place.exists():
                private_folder(place)
            known = {"not_ours": _there_before(place)}
            write_once(place / OWNERS, json.dumps(known).encode())
    return place


def stored_items(place: Path) -> list[Path]:
    """Return what of a folder a site's store has made, the list of its owners last.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    if not place.is_dir():
        return []
    owners = place / OWNERS
    theirs = read_json(owners).get("not_ours")
    if not isinstance(theirs, list):  # absent, or damaged
        theirs = _there_before(place)
    found = {item for item in place.iterdir() if _is_named(item) and item.name not in theirs}
    return [*sorted(found), *([owners] if owners.exists() else [])]


def _is_named(item: Path) -> bool:
    return item.name in (*NAMES, *_BESIDE_JOBS)


def _there_before(place: Path) -> list[str]:
    """Return what has a name of ours though the folder holds other things: its owner is unknown.

    A folder that holds nothing but such names is a store of an earlier version.
    """
    names = [item.name for item in place.iterdir() if _is_named(item)]
    others = any(not _is_named(item) for item in place.iterdir() if not item.name.startswith("."))
    return names if others else []


def site_secret(store: Path) -> str:
    """Return the secret of a site's store; the first process that needs it makes it, or none does.

    It never leaves the site: it keys digests of rows, and identities are derived from it.

    Raises
    ------
    OSError
        If it can be neither read nor written.
    """
    path = store / KEY_FILE
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # another process was faster
            write_once(path, secrets.token_hex(16).encode())
    return path.read_text(encoding="ascii")


def size_on_disk(path: Path) -> int:
    """Return the bytes of all files below a path; links are not followed."""
    files = [path] if path.is_symlink() or path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, and so those above it that are missing.

    Folders above it that exist already stay as they are.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    for missing in [p for p in reversed(folder.parents) if not p.exists()]:
        missing.mkdir(0o700, exist_ok=True)
    folder.mkdir(0o700, exist_ok=True)
    with contextlib.suppress(PermissionError):  # someone else's: our files are private anyhow
        folder.chmod(0o700)
