"""What a run is to be, worked out and checked before anything is started or written."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core import (
    DataError,
    Settings,
    SettingsError,
    UserError,
    explain,
    flatten,
    new_run_folder,
    parse_run,
    with_run_name,
)

Scalar = bool | int | float | str

FILE_KEYS = ("data.path", "data.test_path")
"""Keys that name something which must exist."""

FOLDER_KEYS = ("llm.store", "run.output", "run.folder")
"""Keys that name something which a run may make."""


@dataclass(frozen=True)
class Plan:
    """A checked run: its settings, what to tell Flower, and from where.

    Parameters
    ----------
    settings : Settings
        The whole frozen tree.
    overrides : dict
        Flat keys and values that differ from the app's own defaults, paths absolute.
    app : Path
        The checkout whose ``pyproject.toml`` describes the Flower app.
    programs : dict
        Absolute path of each Flower program by name.
    notices : tuple of str
        Keys of the files that were dropped, each with its reason.
    """

    settings: Settings
    overrides: dict[str, Scalar]
    app: Path
    programs: dict[str, str]
    notices: tuple[str, ...] = ()


def make_plan(
    files: Iterable[Path],
    assignments: Iterable[str],
    name: str | None,
    clients: int | None = None,
    unset: Iterable[str] = (),
) -> Plan:
    """Read and check everything that can be checked before Flower starts.

    Parameters
    ----------
    files : iterable of Path
        Config files, later ones winning.
    assignments : iterable of str
        ``key=value``, winning over the files.
    name : str, optional
        The run's name, winning over both.
    clients : int, optional
        Nodes of a deployment: that many clients the run has, whatever the files say.
    unset : iterable of str
        Keys of the files that go back to their defaults.

    Returns
    -------
    Plan
        What to start.

    Raises
    ------
    UserError
        One line, for a mistake in the settings, a missing data file, or no checkout.
    """
    paths = list(files)
    own = [] if name is None else [f"run.name={name}"]
    there = [] if clients is None else [f"run.clients={clients}"]
    notices: list[str] = []
    settings, overrides = parse_run(paths, [*there, *assignments, *own], unset, notices)
    settings = with_run_name(settings, paths[-1] if paths else None)
    overrides["run.name"] = settings.run.name
    if clients is not None and settings.run.clients != clients:
        raise SettingsError(
            f"run.clients = {settings.run.clients} on a deployment of {clients} nodes",
            f"run.clients = {clients}",
            "leave run.clients out, or use another deployment",
        )
    overrides = absolute_paths(overrides, Path.cwd())
    check_paths(overrides, per_site=settings.data.per_site, used=settings.run.resume)
    return Plan(settings, overrides, find_app(), find_programs(), tuple(notices))


def say_notices(plan: Plan) -> None:
    """Print to stderr which keys of the files were dropped."""
    for line in plan.notices:
        print(f"llm-qfl: {line}", file=sys.stderr)


def absolute_paths(overrides: Mapping[str, Scalar], base: Path) -> dict[str, Scalar]:
    """Resolve what the user named relative to `base`: Flower runs from another folder.

    ``llm.model`` and the model of an agent in this process are paths only where such a folder
    exists; otherwise they are names or hub ids.

    Raises
    ------
    SettingsError
        For text that no system takes as a path.
    """
    resolved = dict(overrides)
    models = ("llm.model", *(("agent.model",) if overrides.get("agent.kind") == "llm" else ()))
    for key in (*FILE_KEYS, *FOLDER_KEYS, *models):
        value = resolved.get(key)
        if not isinstance(value, str) or not value:
            continue
        if "\0" in value:
            raise SettingsError(f"{key} = {value!r}", "a path", "remove the NUL")
        # not `resolve`: symlinks stay as named; not `Path.expanduser`: it raises for "~who-is-it"
        path = Path(os.path.abspath(base / os.path.expanduser(value)))
        if key not in models or os.path.isdir(path):
            resolved[key] = str(path)
    return resolved


def check_paths(overrides: Mapping[str, Scalar], *, per_site: bool, used: bool = False) -> None:
    """Refuse data that is not there and a results folder that is not empty, unless it is `used`.

    A per-site path belongs to another machine, or is a pattern: it is not looked at here.
    """
    for key in FILE_KEYS:
        value = overrides.get(key)
        if isinstance(value, str) and value and not per_site and not os.path.exists(value):
            raise DataError(
                f"{key} = {value!r} does not exist", "a file or folder", "check the path"
            )
    folder = overrides.get("run.folder")
    if isinstance(folder, str) and folder and not used:
        try:
            full = os.path.exists(folder) and bool(os.listdir(folder))
        except NotADirectoryError:
            full = True
        except OSError as error:
            raise SettingsError(_unusable("run.folder", folder, error)) from None
        if full:
            raise SettingsError(
                f"run.folder = {folder!r} is in use", "a new or empty folder", "name one"
            )


def _unusable(key: str, place: object, error: OSError) -> str:
    return explain(
        f"{key} = {str(place)!r} ({error.strerror or error})",
        "a folder that can be read and written",
        "choose another",
    )


def find_app() -> Path:
    """Return the checkout that holds the Flower app's ``pyproject.toml``."""
    import core

    root = Path(core.__file__).resolve().parents[1]
    try:
        tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
        tool["flwr"]["app"]["components"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise UserError(
            f"no Flower app at {str(root)!r}",
            "a checkout of the project, installed with `pip install -e .`",
            "run `llm-qfl` from such an installation",
        ) from None
    return root


def find_programs(*more: str) -> dict[str, str]:
    """Find Flower's programs, and `more` of them: beside this Python first, then on the path."""
    beside = Path(sys.executable).parent
    found: dict[str, str] = {}
    for program in ("flwr", "flower-superlink", *more):
        place = shutil.which(program, path=str(beside)) or shutil.which(program)
        if place is None:
            raise UserError(
                f"the program {program!r} is missing",
                "Flower 1.41 installed beside llm-qfl",
                "install with `pip install -e .`",
            )
        found[program] = place
    return found


def make_run_folder(plan: Plan) -> Path:
    """Make the results folder, absolute and empty, that the run will write to.

    Raises
    ------
    SettingsError
        If it cannot be made or written.
    """
    given = plan.overrides.get("run.folder")
    key = "run.folder" if given else "run.output"
    place = str(given or plan.overrides.get("run.output") or plan.settings.run.output)
    try:
        folder = Path(place) if given else new_run_folder(Path(place), plan.settings.run.name)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(_unusable(key, place, error)) from None
    return folder


def run_config(plan: Plan, folder: Path) -> dict[str, Scalar]:
    """Return what Flower must be told: the user's overrides and the results folder."""
    known = flatten(plan.settings)
    told = {key: value for key, value in plan.overrides.items() if key in known}
    return {**told, "run.folder": str(folder)}
