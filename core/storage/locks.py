"""One process at a time: a lock on a file that the system gives up when its holder ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import UserError


@contextmanager
def held(path: Path, otherwise: str) -> Iterator[None]:
    """Hold a file's lock; it goes with the process, however that ends.

    Parameters
    ----------
    path : Path
        The file; made if absent, its folder is not.
    otherwise : str
        What to say if another process holds it.

    Raises
    ------
    UserError
        If one does. Never on Windows, which has no such locks.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(otherwise) from None
        yield
