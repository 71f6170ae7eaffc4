"""Modules of the user's own: where they lie, and whether Python finds them there."""

from __future__ import annotations

import importlib.util
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
    for folder in (Path.cwd(), HOME):
        for place in (folder / f"{top}.py", folder / top):
            if folder.name == "site-packages" or _is_ours(place):
                continue
            if place.is_file() or (place / "__init__.py").is_file():
                return place
    return None


def _is_ours(place: Path) -> bool:
    return place.parent == HOME and place.name in PACKAGES


def taken_by(place: Path) -> str:
    """Say which other module Python finds in the place of a user's file; empty if none."""
    try:
        spec = importlib.util.find_spec(place.stem)
    except (ImportError, ValueError):
        return ""
    origin = str(spec and spec.origin)
    mine = place / "__init__.py" if place.is_dir() else place
    if spec is None or Path(origin).resolve() == mine.resolve():
        return ""
    return origin if origin.endswith(".py") else f"Python's own {place.stem}"
