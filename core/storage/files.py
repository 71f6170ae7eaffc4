"""Files of a run: its folder, a lock, and writes that a crash cannot leave half done."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import SettingsError, UserError

LONGEST_NAME = 100
"""Bytes of a run's name: its folder, with a date before it, must stay below 255."""


def real_path(path: str | Path) -> Path:
    """Return an absolute path without links; unlike `Path.resolve` it never fails.

    A loop of links is left as it is, and so is the home folder of a user who is not known.
    """
    try:
        return Path(os.path.realpath(os.path.expanduser(path)))
    except ValueError:  # a NUL: opening it fails with a clear error
        return Path(path)


def check_new_run(output: Path, name: str) -> None:
    """Refuse a run's name that cannot be part of a path, and an output that cannot be a folder.

    Raises
    ------
    SettingsError
        One line; nothing is made.
    """
    plain_name = all(c.isalnum() or c in "-_." for c in name) and name[:1] not in ("", ".")
    if not plain_name or len(name.encode()) > LONGEST_NAME:
        given = name if len(name) <= LONGEST_NAME else name[:40] + "…"
        accepted = f"letters, digits, '-', '_' and '.', at most {LONGEST_NAME} bytes"
        raise SettingsError(f"run.name = {given!r}", accepted, "choose such a name")
    output = real_path(output)
    there = next(place for place in (output, *output.parents) if os.path.lexists(place))
    try:
        os.stat(f"{there}/.")  # a file, a loop of links and a closed folder fail alike
    except OSError as error:
        raise _unwritable(output, error.strerror or str(error)) from None
    if not os.access(there, os.W_OK):
        raise _unwritable(output, "Permission denied")


def new_run_folder(output: Path, name: str) -> Path:
    """Make ``<output>/<time>-<name>`` and point ``<output>/latest`` at it.

    Parameters
    ----------
    output : Path
        Folder that collects the runs; made if absent.
    name : str
        Name of the run; letters, digits, ``-``, ``_`` and ``.``.

    Returns
    -------
    Path
        Absolute path of the new, empty folder.

    Raises
    ------
    SettingsError
        If the name cannot be part of a path, or the folder cannot be written.
    """
    check_new_run(output, name)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    output = real_path(output)
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = output / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue
            raise _unwritable(output, "is not a folder") from None
        except (OSError, ValueError) as error:
            raise _unwritable(output, getattr(error, "strerror", None) or str(error)) from None
        _point(output / "latest", folder)
        return folder
    raise _unwritable(output, f"holds 999 runs called {stamp}-{name}")


def _unwritable(output: Path, why: str) -> SettingsError:
    given = f"run.output = {str(output)!r} ({why})"
    return SettingsError(given, "a folder that can be written", "choose another")


def _point(link: Path, folder: Path) -> None:
    """Swap the link in one step; a plain file or folder of that name is left alone."""
    if link.exists() and not link.is_symlink():
        return
    fresh = link.with_name(f".latest-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(link)


@contextmanager
def file_lock(path: Path, refusal: str = "") -> Iterator[None]:
    """Hold a file's lock, which the system releases when its process ends, however that ends.

    Parameters
    ----------
    path : Path
        The file; made if absent, its folder is not.
    refusal : str
        The error's message if another process holds the lock; empty: wait for it.

    Raises
    ------
    UserError
        If another process holds it. Never on Windows, which has no such locks.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise UserError(refusal) from None
        yield


def atomic_write(path: Path, write: Callable[[Path], object], *, mode: int = 0o644) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    A reader sees the old file or the new one, never a part, and never one that more users may
    read than its ``mode`` says. When it returns, the new one survives a power cut.

    Raises
    ------
    OSError
        If it cannot be written; it names `path`, and the old file is still there.
    """
    with _draft(path, write, mode) as temporary:
        temporary.replace(path)


def write_once(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file that is not there yet, whole or not at all.

    Raises
    ------
    FileExistsError
        If it is there; it is left as it is.
    OSError
        If it cannot be written.
    """
    with _draft(path, lambda file: file.write_bytes(data), mode) as temporary:
        os.link(temporary, path)


@contextmanager
def _draft(path: Path, write: Callable[[Path], object], mode: int) -> Iterator[Path]:
    """Fill a hidden file beside `path`, let the caller put it into place, and clean up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:200]}-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        yield temporary
        sync_folder(path.parent)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _named(error: OSError, path: Path) -> OSError:
    """Return an error of the system with the file that a user knows; a write knows none."""
    return OSError(error.errno, error.strerror, str(path)) if error.errno else error


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write bytes atomically."""
    atomic_write(path, lambda file: file.write_bytes(data), mode=mode)


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write JSON atomically; NaN and infinities become ``null``.

    ``compact`` is for what grows with clients and rounds: on one line, a tenth of the time.
    """
    indent = None if compact else 2
    write_text(path, json.dumps(plain(value), indent=indent, allow_nan=False) + "\n")


def append_jsonl(path: Path, value: Any) -> bytes:
    """Append one JSON object as one line: all of it, or nothing where the disk is full.

    Returns
    -------
    bytes
        The line without its end.

    Raises
    ------
    OSError
        If it cannot be written; it names `path`.
    """
    line = json.dumps(plain(value), allow_nan=False).encode()
    left = memoryview(line + b"\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
        except BaseException as error:
            file.truncate(before)
            raise _named(error, path) if isinstance(error, OSError) else error from None
    return line


def read_file(path: Path) -> bytes:
    """Return a file's bytes; a pipe or device, which may block, is refused.

    Raises
    ------
    OSError
        If it is no file, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        kind = os.fstat(handle).st_mode
        if not stat.S_ISREG(kind):
            what = "it is a folder" if stat.S_ISDIR(kind) else "it is no file but a pipe or device"
            raise OSError(errno.EINVAL, what, str(path))
    except OSError:
        os.close(handle)
        raise
    with open(handle, "rb") as file:
        return file.read()


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object that a text is, or None if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object; empty if the file is absent, unreadable or holds no object."""
    try:
        return json_object(read_file(path)) or {}
    except OSError:
        return {}


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, none if it is absent or unreadable.

    What a crash left half written is left out, and so is a last line still being written.
    """
    try:
        *lines, _ = read_file(path).split(b"\n")
    except OSError:
        return
    for line in lines:
        if (value := json_object(line)) is not None:
            yield value


def by_number(path: Path) -> list[tuple[str, int]]:
    """Return a key that sorts names by the numbers in them: ``round-999`` before ``round-1000``."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(word, int(n)) for word, n in zip(parts[::2], [*parts[1::2], "0"], strict=True)]


_PLAIN = frozenset((str, int, bool, type(None)))


def plain(value: Any) -> Any:
    """Turn numpy scalars, tuples and non-finite numbers into plain JSON values."""
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):  # most values
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
