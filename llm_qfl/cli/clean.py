"""`llm-qfl clean`: what the project keeps outside the results folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from core import UserError, our_items, store_root
from llm_qfl.cli.processes import end_all, members, running


def leftovers(base: Path = Path("/tmp")) -> Iterator[tuple[Path, str]]:
    """Yield private folders of launches that were killed outright, with their tags."""
    alive = running()
    for folder in sorted(base.glob("llm-qfl-*")):
        try:
            number, tag = (folder / "launch").read_text(encoding="utf-8").split()
            pid = int(number)
        except (OSError, ValueError):
            continue  # not made by us
        if pid not in alive and folder.stat().st_uid == os.getuid():
            yield folder, tag


def size(path: Path) -> int:
    """Return the bytes of all files below a path; links are not followed."""
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_symlink() or f.is_file())


def clean(*, remove: bool) -> int:
    """List what is kept, and remove it if asked to.

    Parameters
    ----------
    remove : bool
        Whether to remove, not only list.

    Returns
    -------
    int
        0.

    Raises
    ------
    UserError
        If jobs in the store wait to be collected.
    """
    place = store_root()
    kept = our_items(place)
    if remove:
        _refuse_open_jobs(place)
    dead = dict(leftovers())
    found = [*kept, *dead]
    if not found:
        print(f"nothing of ours is kept in {place}")
        return 0
    for path in found:
        print(f"{size(path) / 1e6:9.1f} MB  {path}")
        if remove:
            if path in dead:
                end_all(members(dead[path]), grace=3.0)
            _remove(path)
    total = "removed" if remove else "remove it with: llm-qfl clean --yes"
    print(f"{len(found)} item{'s' * (len(found) != 1)}; {total}")
    return 0


def _refuse_open_jobs(place: Path) -> None:
    """Refuse to forget jobs that are paid for and wait at a device."""
    if not (place / "jobs.sqlite").is_file():
        return
    from llm_qfl.cli.children import ChildFailedError
    from llm_qfl.cli.jobs import ask_book

    try:
        waiting = len(ask_book(place))
    except ChildFailedError as error:
        raise UserError(f"the book of jobs in {str(place)!r} could not be read: {error}") from None
    if waiting:
        raise UserError(
            f"{waiting} jobs of {str(place)!r} were submitted to a device and not collected",
            "a store without open jobs",
            "let their run collect them, or end them with: llm-qfl jobs --cancel",
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
