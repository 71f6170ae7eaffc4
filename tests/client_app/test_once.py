"""What a site does once: in any of its processes, with one key, until the note is forgotten."""

from __future__ import annotations

import os
from pathlib import Path

from client_app.once import KEPT_DAYS, first_time, forget_old
from client_app.site import SiteCache
from core import parse_run


def site(store: Path, client: int) -> SiteCache:
    return SiteCache(parse_run([], [f"llm.store={store}"])[0], client, "")


def test_each_thing_is_done_once_with_a_key_by_each_site(tmp_path: Path) -> None:
    assert first_time(site(tmp_path, 0), "masked", b"key")
    assert not first_time(site(tmp_path, 0), "masked", b"key")
    assert first_time(site(tmp_path, 0), "answered", b"key")
    assert first_time(site(tmp_path, 0), "masked", b"other")
    assert first_time(site(tmp_path, 1), "masked", b"key")


def test_only_old_notes_are_forgotten(tmp_path: Path) -> None:
    first_time(site(tmp_path, 0), "masked", b"old")
    (old,) = (tmp_path / "secure").iterdir()
    past = old.stat().st_mtime - (KEPT_DAYS + 1) * 86_400
    os.utime(old, (past, past))
    first_time(site(tmp_path, 0), "masked", b"new")
    forget_old(site(tmp_path, 0))
    assert [first_time(site(tmp_path, 0), "masked", key) for key in (b"old", b"new")] == [
        True,
        False,
    ]
