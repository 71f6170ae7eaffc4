"""What comes with the packages: the Flower app's description, configurations, the commit.

In a checkout these are files beside the packages; a wheel installs them in ``share/llm-qfl``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[2]
"""The folder that our packages are in: a checkout's, or one of installed packages."""

APP = ("client_app", "core", "data", "llm", "quantum", "reporting", "server_app", "strategies")
"""The packages of the Flower app."""

SHARE = "share/llm-qfl/"


def shipped(name: str) -> Path | None:
    """Return a file that comes with the packages, for instance ``config/demo.toml``; None if none.

    Parameters
    ----------
    name : str
        Its path in a checkout.
    """
    if (PACKAGES / "pyproject.toml").is_file():
        return PACKAGES / name if (PACKAGES / name).is_file() else None
    try:
        files = metadata.distribution("llm-qfl").files or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.as_posix().endswith(SHARE + name)), None)


def config_file(path: Path) -> Path:
    """Return the file that ``--config`` names.

    What does not exist is looked for among the shipped configurations, as ``demo``, ``demo.toml``
    or ``config/demo.toml``.
    """
    if os.path.exists(path) or str(path.parent) not in (".", "config"):
        return path
    return shipped(f"config/{path.name.removesuffix('.toml')}.toml") or path


def foreign_package() -> str:
    """Say which package of another project stands in the place of ours; empty if none does.

    Some of our packages have common names: the package index has a ``data`` and an ``llm``.
    """
    for name in APP:
        own, spec = PACKAGES / name / "__init__.py", find_spec(name)
        place = Path(str(spec and spec.origin)).resolve()
        if place != own or not _as_installed(own):
            return (
                f"the package {name!r} in {str(place.parent)!r} is another project's; accepted: "
                f"the one in {str(own.parent)!r}; use llm-qfl in an environment of its own."
            )
    return ""


def _as_installed(file: Path) -> bool:
    """Whether a file is still the one that our wheel has installed, if a wheel has."""
    try:
        files = metadata.distribution("llm-qfl").files or []
    except metadata.PackageNotFoundError:
        return True
    name = file.relative_to(PACKAGES).as_posix()
    sizes = [f.size for f in files if f.as_posix() == name and f.locate() == file]
    return all(size in (None, file.stat().st_size) for size in sizes)


def app_description() -> Path:
    """Return the ``pyproject.toml`` that describes the Flower app.

    Raises
    ------
    UserError
        If the installation lacks it.
    """
    from core import UserError  # not before `foreign_package` has looked whether it is ours

    found = shipped("pyproject.toml")
    if found is None:
        raise UserError(
            f"no Flower app at {str(PACKAGES)!r}: pyproject.toml is missing",
            "a checkout, or an installed wheel",
            "install llm-qfl again",
        )
    return found


def app_folder(place: Path, files: Mapping[str, Path]) -> Path:
    """Return a folder for ``flwr run``, made of our packages in `place`.

    Never the checkout itself: Flower matches every file below the app's folder with its patterns,
    which took 6 s where an environment (``.venv``) is in it.

    Parameters
    ----------
    place : Path
        A folder of this launch alone, so that nobody sees a half-written app.
    files : Mapping
        Files of the user's own by their names in the app's folder.
    """
    description = app_description()
    app = place / "app"
    for package in APP:
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGES / package, app / package, ignore=skip, dirs_exist_ok=True)
    shutil.copy(description.with_name("LICENSE"), app)
    for name, path in files.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, app / name)
    included = "".join(f'\n  "/{name}",' for name in files)
    text = description.read_text(encoding="utf-8")
    text = text.replace("fab-include = [", f"fab-include = [{included}", 1)
    (app / "pyproject.toml").write_text(text, encoding="utf-8")
    return app


def commit(root: Path = PACKAGES) -> str:
    """Return a checkout's commit, marked if files differ from it; "unknown" without git."""
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip() or "unknown"


def known_commit(inherited: Mapping[str, str]) -> str:
    """Return the checkout's commit; without git what the environment says, as in an image."""
    # What is installed may lie below somebody's own repository.
    found = commit() if (PACKAGES / "pyproject.toml").is_file() else "unknown"
    return inherited.get("LLM_QFL_COMMIT", found) if found == "unknown" else found
