"""Modules of the user's own: where they lie, and whether Python finds them there."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
"""The folder that our packages are in."""

PACKAGES = (
    *("client_app", "core", "data", "llm", "llm_qfl", "quantum", "reporting", "server_app"),
    "strategies",
)
"""Our packages: no user's file stands in for one."""


def own_file(name: str) -> Path | None:
    """Return the file or package folder of ``module:attribute`` in the user's folder.

    At a site the bundle's folder is the user's. None if it belongs to an installed package, which
    every site must have for itself, or is one of our own.
    """
    top = name.partition(":")[0].partition(".")[0]
    for folder in _folders():
        for place in (folder / f"{top}.py", folder / top):
            if folder.name == "site-packages" or _is_ours(place):
                continue
            if place.is_file() or (place / "__init__.py").is_file():
                return place
    return None


def _folders() -> list[Path]:
    """Return where a user's files may lie.

    First ``apps/NAME``, where Flower has unpacked an app that this process runs. With `flwr run .`
    the user's own folder is there too, and Ray's workers import from it.
    """
    places = [Path(place) for place in sys.path if Path(place).parent.name == "apps"]
    apps = [place for place in places if (place / "pyproject.toml").is_file()]
    return [*apps, Path.cwd(), HOME]


def _is_ours(place: Path) -> bool:
    return place.parent == HOME and place.name in PACKAGES


def taken_by(place: Path) -> str:
    """Say which other module Python finds in the place of a user's file; empty if none."""
    try:
        spec = importlib.util.find_spec(place.stem)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    origin = str(spec.origin)
    if not os.path.isabs(origin):
        return f"Python's own {place.stem}"
    found = Path(origin).parent if origin.endswith("__init__.py") else Path(origin)
    homes = [folder.resolve() for folder in _folders() if folder.name != "site-packages"]
    return "" if found.parent.resolve() in homes and not _is_ours(found) else origin
