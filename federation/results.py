"""The results folder: its name, and writes that a crash cannot leave half done."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from federation.errors import SettingsError, explain


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
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
        raise SettingsError(
            explain(
                f"run.name = {name!r}", "letters, digits, '-', '_' and '.'", "choose such a name"
            )
        )
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    output = output.expanduser().resolve()
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = output / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.is_dir():
                continue
            raise SettingsError(_unwritable(output, "is not a folder")) from None
        except OSError as error:
            raise SettingsError(_unwritable(output, error.strerror or str(error))) from None
        _point(output / "latest", folder)
        return folder
    raise SettingsError(_unwritable(output, f"holds 999 runs called {stamp}-{name}"))


def _unwritable(output: Path, why: str) -> str:
    return explain(
        f"run.output = {str(output)!r} ({why})", "a folder that can be written", "choose another"
    )


def _point(link: Path, folder: Path) -> None:
    """Swap the link in one step; a plain file or folder of that name is left alone."""
    if link.exists() and not link.is_symlink():
        return
    fresh = link.with_name(f".latest-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(link)


STORE_VARIABLE = "LLM_QFL_HOME"
"""Environment variable that moves the sites' memory."""


def store_root(store: str = "") -> Path:
    """Return the folder of a site's memory.

    Parameters
    ----------
    store : str
        `llm.store`; empty: ``LLM_QFL_HOME`` of the environment, else ``llm-qfl`` in the user's
        cache folder.
    """
    home = store or os.environ.get(STORE_VARIABLE, "")
    if home:
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llm-qfl"


def atomic_write(path: Path, write: Callable[[Path], object], *, mode: int = 0o644) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    A reader sees the old file or the new one, never a part, and never one that more users may
    read than its ``mode`` says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinities become ``null``."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def append_jsonl(path: Path, value: Any) -> None:
    """Append one JSON object as one line, in a single write."""
    line = json.dumps(plain(value), allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object that a text is, or None if it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object; empty if the file is absent, unreadable or holds no object."""
    try:
        return json_object(path.read_bytes()) or {}
    except OSError:
        return {}


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, none if it is absent or unreadable.

    What a crash left half written is left out, and so is a last line still being written.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        if (value := json_object(line)) is not None:
            yield value


def by_number(path: Path) -> list[tuple[str, int]]:
    """Return a key that sorts names by the numbers in them: ``round-999`` before ``round-1000``."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(word, int(n)) for word, n in zip(parts[::2], [*parts[1::2], "0"], strict=True)]


def plain(value: Any) -> Any:
    """Turn numpy scalars, tuples and non-finite numbers into plain JSON values."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
