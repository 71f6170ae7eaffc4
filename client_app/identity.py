"""A site's rows in one word, which tells nobody else anything of them."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from client_app.site import SiteMemory
from core import open_store, write_once

KEY_FILE = "rows.key"
"""File of the site's store that keys its digests; it never leaves the site."""

UNKNOWN = "none"
"""Where the store cannot keep a secret: nothing is compared then."""


def rows_digest(memory: SiteMemory) -> str:
    """Return ``<store>-<digest>``: which secret keyed it, and the keyed digest of all rows.

    A resumed run compares it with the one that the run began with. Without the secret nobody can
    test a guess of the rows against it.
    """
    from llm import content_key

    try:
        secret = _secret(open_store(memory.settings.llm.store))
    except OSError:
        return UNKNOWN
    parts = (memory.site.train, memory.site.validation, memory.site.test)
    texts, labels = [part.texts for part in parts], [part.labels for part in parts]
    which = content_key([], [], {"which": secret})
    return f"{which[:8]}-{content_key(texts, labels, {'secret': secret})}"


def _secret(store: Path) -> str:
    """Return the store's secret; the first process that asks makes it, whole or not at all."""
    path = store / KEY_FILE
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # another process was faster
            write_once(path, secrets.token_hex(16).encode())
    return path.read_text(encoding="ascii")
