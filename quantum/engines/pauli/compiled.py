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
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).with_name("kernels.py")
VARIABLE = "NUMBA_CACHE_DIR"


@functools.cache
def kernels() -> ModuleType:
    """Return the module of compiled functions."""
    import numba

    source = SOURCE.read_bytes()
    digest = hashlib.sha256(source + numba.__version__.encode()).hexdigest()[:16]
    place = _own_copy(source, digest)
    if place is None:
        from quantum.engines.pauli import kernels as found  # compiled again by each process

        return found
    name = f"llm_qfl_kernels_{digest}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def folder() -> Path:
    """Return where compiled functions are: ``NUMBA_CACHE_DIR``, else the user's cache folder."""
    if given := os.environ.get(VARIABLE):
        return Path(given) / "llm-qfl"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llm-qfl-compiled"


def _own_copy(source: bytes, digest: str) -> Path | None:
    """Return a copy of the source in a folder that only this user may write to; None: no such."""
    with contextlib.suppress(OSError, RuntimeError):  # no home, no space, no right
        place = folder() / digest
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.lstat()
        # What Numba stores is run when it is read.
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not mine or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        copy = place / SOURCE.name
        if not copy.is_file() or copy.read_bytes() != source:
            handle, beside = tempfile.mkstemp(dir=place)
            with os.fdopen(handle, "wb") as file:
                file.write(source)
            os.replace(beside, copy)
        return copy
    return None
