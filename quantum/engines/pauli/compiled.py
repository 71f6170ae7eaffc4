"""Loading the compiled functions: compiled once a user, machine and version, then read from disk.

Numba stores what it has compiled beside the source file. An app's files lie in another folder
after each change, in a deployment for each bundle, so the source is copied to one place for each
content of it, and loaded from there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from core import UserError, store_root
from core.storage.files import write_bytes

SOURCE = Path(__file__).with_name("kernels.py")
VARIABLE = "NUMBA_CACHE_DIR"


@functools.cache
def kernels() -> ModuleType:
    """Return the module of compiled functions."""
    import numba

    source = SOURCE.read_bytes()
    digest = hashlib.sha256(source + numba.__version__.encode()).hexdigest()[:16]
    name = f"llm_qfl_kernels_{digest}"
    spec = importlib.util.spec_from_file_location(name, own_copy(source, digest))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Beside the copy, in a folder that was looked at; NUMBA_CACHE_DIR may be open to others.
    config: Any = numba.config
    given, config.CACHE_DIR = config.CACHE_DIR, ""
    try:
        spec.loader.exec_module(module)
    finally:
        config.CACHE_DIR = given
    return module


def folders() -> Iterator[Path]:
    """Yield where compiled functions may lie: the first that this user alone can write to is it.

    ``NUMBA_CACHE_DIR``, the user's cache folder, the site's store, a folder of the user's beside
    temporary files, which the next start of a machine may find empty, and one for this process.
    """
    if given := os.environ.get(VARIABLE):
        yield Path(given) / "llm-qfl"
    with contextlib.suppress(RuntimeError):  # no home
        cache = os.environ.get("XDG_CACHE_HOME")
        yield (Path(cache) if cache else Path.home() / ".cache") / "llm-qfl-compiled"
        yield store_root() / "compiled"
    yield Path(tempfile.gettempdir()) / f"llm-qfl-compiled-{os.getuid()}"
    yield Path(tempfile.mkdtemp())


def own_copy(source: bytes, digest: str) -> Path:
    """Return a copy of the source in a folder that only this user may write to.

    Raises
    ------
    UserError
        If there is no such folder, not even beside temporary files.
    """
    for folder in folders():
        with contextlib.suppress(OSError):  # no space, no right
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = folder / digest
            place.mkdir(mode=0o700, exist_ok=True)
            if not (_is_own(folder) and _is_own(place)):
                continue
            copy = place / SOURCE.name
            if not copy.is_file() or copy.read_bytes() != source:
                write_bytes(copy, source)
            tempfile.TemporaryFile(dir=place).close()  # Numba wants to write there
            return copy
    raise UserError(
        "no folder for compiled functions",
        f"one that this user alone can write to: {VARIABLE}, the cache folder, temporary files",
        f"set {VARIABLE}",
    )


def _is_own(folder: Path) -> bool:
    """Whether nobody else can put files there: what Numba stores is run when it is read."""
    found = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & others
    )
