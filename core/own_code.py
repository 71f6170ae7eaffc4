"""Files of the user's own that a run uses: they travel with it to every site, as code.

A setting names ``module:attribute``; the module's file, or its whole package, lies in the folder
that the user stands in. What it imports from there travels too.
"""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import re
import sys
from pathlib import Path

from core import registry
from core.errors import SettingsError
from core.own_modules import own_file, taken_by
from core.settings.schema import Settings, flatten

TYPES = (".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl")
"""What Flower's bundle takes of a folder; it drops the rest without a word."""

DROPPED = ("test_*.py", "*_test.py", "build", "eggs", "env", "lib", "lib64", "parts", "venv")
"""Names of modules and packages that Flower's bundle drops."""

MOST_BYTES, MOST_IN_ALL = 2**20, 4 * 2**20
"""Bytes of a file, and of all: the bundle is unpacked at every site for every message."""


def own_names(settings: Settings) -> dict[str, str]:
    """Return the settings that name ``module:attribute``, by key."""
    flat = flatten(settings)
    named = {point.setting: str(flat[point.setting]) for point in registry.POINTS.values()}
    return {key: name for key, name in named.items() if registry.OWN_FILE.fullmatch(name)}


def load_extensions(settings: Settings) -> None:
    """Import what is not ours at the extension points: a bad one is found here.

    Raises
    ------
    SettingsError
        One line that names the file and what is expected of it.
    """
    _forget_changed(settings)
    flat = flatten(settings)
    for point in registry.POINTS.values():
        name = str(flat[point.setting])
        if registry.is_extension(point.name, name) and name not in registry.shipped(point.name):
            registry.find(point.name, name)


_loaded: dict[Path, str] = {}
"""sha256 of the user's files as this process has imported them."""


def _forget_changed(settings: Settings) -> None:
    """Have files imported again that were edited since: a run records the files as they are now."""
    files = {name: path for name, path in own_files(settings).items() if path.suffix == ".py"}
    now = {path: _sha256(path) for path in files.values()}
    if any(_loaded.get(path, digest) != digest for path, digest in now.items()):
        for name in files:  # what imports an edited file holds on to the old one
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            sys.modules.pop(module, None)
    _loaded.update(now)


def own_files(settings: Settings) -> dict[str, Path]:
    """Find the files that travel with a run.

    In the user's folder before the run, beside our packages at a site.

    Returns
    -------
    dict
        Path of each file by its name in the bundle, for instance ``my_agent.py``; sorted. Modules
        of installed packages are not among them: every site needs the package.

    Raises
    ------
    SettingsError
        For a file whose name another module has, one that the bundle does not take, a link, or
        one that is too large.
    """
    found: dict[str, Path] = {}
    for key, name in own_names(settings).items():
        place = own_file(name)
        if place is not None:
            _collect(f"{key} = {name!r}", place, found)
    total = sum(path.stat().st_size for path in found.values())
    if total > MOST_IN_ALL:
        raise _refused("files of yours", f"{total:,} bytes in all", f"at most {MOST_IN_ALL:,}")
    return dict(sorted(found.items()))


def digests(settings: Settings) -> dict[str, str]:
    """Return the sha256 of each file that travels with a run, for its record."""
    return {name: _sha256(path) for name, path in own_files(settings).items()}


def source_digest(point: str, name: str) -> str:
    """Return the digest of a user's source files, for keys of caches; of ours an empty text.

    Of one file its sha256; of one that imports others of its folder, of all their names and sha256.
    """
    found: dict[str, Path] = {}
    place = own_file(name) if registry.OWN_FILE.fullmatch(name) else None
    if place is not None:
        _collect(f"{registry.POINTS[point].setting} = {name!r}", place, found)
    elif name not in registry.shipped(point) and (file := registry.source_file(point, name)):
        found[file.name] = file
    lines = [f"{_sha256(path)}  {file}\n" for file, path in sorted(found.items())]
    if len(lines) < 2:
        return lines[0].partition(" ")[0] if lines else ""
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _collect(what: str, place: Path, found: dict[str, Path]) -> None:
    """Add a module's file or a package's files, and those that they import from the same folder."""
    if place.name in found or f"{place.name}/__init__.py" in found:
        return
    if any(fnmatch.fnmatch(place.name, pattern) for pattern in DROPPED):
        raise _refused(what, f"{place.name} does not travel", "another name", "rename it")
    if other := taken_by(place):
        accepted = "a name that no other module has"
        raise _refused(what, f"{place.name} has the name of {other}", accepted, "rename it")
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        name = path.relative_to(place.parent).as_posix()
        if path.is_symlink():
            raise _refused(what, f"{name} is a link", "a file", "copy the file here")
        if path.is_file() and _travels(name):
            _check_size(what, name, path.stat().st_size)
            found[name] = path
    for name in [name for name in found if found[name].suffix == ".py"]:
        for module in _imports(found[name]):
            beside = own_file(module)
            if beside is not None and beside.parent == place.parent:
                _collect(f"{name} imports {module}", beside, found)


def _travels(name: str) -> bool:
    dropped = any(fnmatch.fnmatch(name.rpartition("/")[2], pattern) for pattern in DROPPED)
    hidden = re.search(r"(^|/)(\.|__pycache__)", name)
    return name.endswith(TYPES) and not dropped and not hidden


def _check_size(what: str, name: str, size: int) -> None:
    if size > MOST_BYTES:
        accepted = f"at most {MOST_BYTES:,}; put data where each site reads it"
        raise _refused(what, f"{name} has {size:,} bytes", accepted)


def _imports(file: Path) -> set[str]:
    """Return the top-level modules that a file imports anywhere; none if it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return set()  # importing it says where
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _refused(what: str, why: str, accepted: str, fix: str = "make it smaller") -> SettingsError:
    return SettingsError(f"{what}: {why}", accepted, fix)
