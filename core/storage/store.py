"""A site's store: where it is, what in it is ours, and that only its owner enters.

A user may set ``LLM_QFL_HOME`` to a folder that holds other things. On first use the store
therefore notes what lay there before under a name that it uses itself; `llm-qfl clean` removes
what has such a name and was not there before, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from core.storage.files import read_json, write_once

STORE_VARIABLE = "LLM_QFL_HOME"

NAMES = ("circuits", "features", "jobs.sqlite", "least-busy", "rounds", "rows.key", "teachers")
"""What the parts of this project make in a store."""

MANIFEST = "llm-qfl-store.json"

_BESIDE_JOBS = ("jobs.sqlite-wal", "jobs.sqlite-shm", "jobs.sqlite-journal")
_FOLDER_MODE = 0o700


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
        return Path(os.path.expanduser(home))
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llm-qfl"


def open_store(store: str = "") -> Path:
    """Return the folder of a site's memory, made and marked as ours if it can be.

    Parameters
    ----------
    store : str
        As for `store_root`.
    """
    place = store_root(store)
    with contextlib.suppress(OSError):  # whoever writes into it says what is wrong
        if not (place / MANIFEST).exists():
            if not place.exists():
                private_folder(place)
            known = {"not_ours": _there_before(place)}
            write_once(place / MANIFEST, json.dumps(known).encode())
    return place


def our_items(place: Path) -> list[Path]:
    """Return what of a folder the store has made, its manifest last.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    if not place.is_dir():
        return []
    manifest = place / MANIFEST
    theirs = read_json(manifest).get("not_ours")
    if not isinstance(theirs, list):  # absent, or damaged
        theirs = _there_before(place)
    found = {item for item in place.iterdir() if _is_named(item) and item.name not in theirs}
    return [*sorted(found), *([manifest] if manifest.exists() else [])]


def _is_named(item: Path) -> bool:
    return item.name in (*NAMES, *_BESIDE_JOBS)


def _there_before(place: Path) -> list[str]:
    """Return what has a name of ours though the folder holds other things: who knows whose it is.

    A folder that holds nothing but such names is a store of an earlier version.
    """
    names = [item.name for item in place.iterdir() if _is_named(item)]
    others = any(not _is_named(item) for item in place.iterdir() if not item.name.startswith("."))
    return names if others else []


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, and so those above it that are missing.

    Folders above it that exist already stay as they are.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    for missing in [p for p in reversed(folder.parents) if not p.exists()]:
        missing.mkdir(_FOLDER_MODE, exist_ok=True)
    folder.mkdir(_FOLDER_MODE, exist_ok=True)
    with contextlib.suppress(PermissionError):  # someone else's: our files are private anyhow
        folder.chmod(_FOLDER_MODE)
