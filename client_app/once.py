"""What a site does once, whichever of its processes does it: noted in its store beforehand.

A SuperNode gives each message a process with a copy of what the site keeps. Of two that are sent at
the same time both would find the copy of before.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from core import UserError, open_store

if TYPE_CHECKING:
    from client_app.site import SiteCache

FOLDER = "secure"
"""Folder of a site's store with an empty file for each thing that was done once."""

KEPT_DAYS = 30
"""After so long no process is left that could do it again."""


def first_time(cache: SiteCache, what: str, key: bytes) -> bool:
    """Note that a site is about to do something; return whether it never was before.

    Parameters
    ----------
    cache : SiteCache
        The site; sites of one process share a store.
    what : str
        What it is, a word.
    key : bytes
        What it is done with, and with nothing else.

    Raises
    ------
    UserError
        If it cannot be noted: it must not be done then.
    """
    name = f"{what}-{cache.client}-{hashlib.sha256(key).hexdigest()[:32]}"
    folder = _folder(cache)
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / name).touch(mode=0o600, exist_ok=False)
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            return False
        raise UserError(
            f"what must be done once cannot be noted in {folder} ({error.strerror})",
            "a folder that may be written, with space left",
            "set llm.store to one",
        ) from error
    return True


def forget_old(cache: SiteCache) -> None:
    """Remove notes that no process needs any more."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for path in _folder(cache).glob("*-*-*"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:  # another process was faster, or may not: it does no harm
            continue


def _folder(cache: SiteCache) -> Path:
    return open_store(cache.settings.llm.store) / FOLDER
