"""What a run is to be, worked out and checked before anything is started or written."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from core import (
    DataError,
    Settings,
    SettingsError,
    UserError,
    by_number,
    flatten,
    may_change,
    new_run_folder,
    parse_run,
    read_json,
    real_path,
    recorded_settings,
    refuse_changes,
    registry,
    with_run_name,
)
from core.formatting import toml_value
from core.own_code import digests, load_extensions, own_files
from core.settings.options import FORM, split_pairs
from core.storage.checkpoints import alone, last_checkpoint, no_checkpoint, rewind
from llm_qfl.cli.shipped import app_description, config_file

Scalar = bool | int | float | str

FILE_KEYS = ("data.path", "data.test_path", "data.unlabelled")
"""Keys that name something which must exist; `{client}` in it stands for a node's index."""

NODE_FILES = ("privacy.site_key", "privacy.peers", "privacy.site_log")
FOLDER_KEYS = ("llm.store", "run.output", "run.folder", *NODE_FILES)
"""Other keys that name a file or folder: a run may make it, or only its node can read it."""


@dataclass(frozen=True)
class Plan:
    """A checked run: its settings, what to tell Flower, and from where.

    Parameters
    ----------
    settings : Settings
        The whole frozen tree.
    overrides : dict
        Flat keys and values that differ from the app's own defaults, paths absolute.
    programs : dict
        Absolute path of each Flower program by name.
    notices : tuple of str
        Keys of the files that were dropped, each with its reason.
    files : dict
        Files of the user's own that travel with the run, by their names in the bundle.
    """

    settings: Settings
    overrides: dict[str, Scalar]
    programs: dict[str, str]
    notices: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)

    def print_notices(self) -> None:
        """Print to stderr which keys of the files were dropped."""
        for line in self.notices:
            print(f"llm-qfl: {line}", file=sys.stderr)


def make_plan(
    files: Iterable[Path],
    assignments: Iterable[str],
    name: str | None = None,
    clients: int | None = None,
    unset: Iterable[str] = (),
) -> Plan:
    """Read and check everything that can be checked before Flower starts.

    Parameters
    ----------
    files : iterable of Path
        Config files, later ones winning; a shipped one by its name.
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
        One line, for a mistake in the settings, a missing data file, or a broken installation.
    """
    app_description()
    paths = [config_file(path) for path in files]
    own = [] if name is None else [f"run.name={name}"]
    there = [] if clients is None else [f"run.clients={clients}"]
    notices: list[str] = []
    settings, overrides = parse_run(paths, [*there, *assignments, *own], unset, notices)
    load_extensions(settings)
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
    return Plan(settings, overrides, find_programs(), tuple(notices), own_files(settings))


def absolute_paths(overrides: Mapping[str, Scalar], base: Path) -> dict[str, Scalar]:
    """Resolve what the user named relative to `base`: Flower runs from another folder.

    Models (`llm.model`, `llm.encoder`, what the agent declares as its `paths`) are paths only where
    such a folder or GGUF file exists; otherwise they are names or hub ids. Of an extension's
    options those are paths that it declares (``path_options``).

    Raises
    ------
    SettingsError
        For text that no system takes as a path.
    """
    resolved = dict(overrides)
    kind = str(overrides.get("agent.kind", Settings().agent.kind))
    models = ("llm.model", "llm.encoder", *registry.declared("agent", kind, "paths", ()))
    for key in (*FILE_KEYS, *FOLDER_KEYS, *models):
        value = resolved.get(key)
        if not isinstance(value, str) or not value:
            continue
        if "\0" in value:
            raise SettingsError(f"{key} = {value!r}", "a path", "remove the NUL")
        path = _absolute(base, value)
        a_model = os.path.isdir(path) or (path.lower().endswith(".gguf") and os.path.isfile(path))
        if key not in models or a_model:
            resolved[key] = path
    for point in registry.POINTS.values():
        key = f"{point.setting.partition('.')[0]}.options"
        if resolved.get(key) and point.setting in resolved:
            paths = registry.declared(point.name, str(overrides[point.setting]), "path_options", ())
            pairs = split_pairs(key, str(resolved[key]), FORM)
            made = [
                (name, _absolute(base, text) if name in paths else text) for name, text in pairs
            ]
            resolved[key] = ",".join(f"{name}={text}" for name, text in made)
    return resolved


def _absolute(base: Path, value: str) -> str:
    # not `resolve`: symlinks stay as named; not `Path.expanduser`: it raises for "~who-is-it"
    return os.path.abspath(base / os.path.expanduser(value))


def check_paths(overrides: Mapping[str, Scalar], *, per_site: bool, used: bool = False) -> None:
    """Refuse data that is not there and a results folder that is not empty, unless it is `used`.

    A per-site path belongs to another machine, or is a pattern: it is not looked at here.
    """
    for key in FILE_KEYS:
        value = overrides.get(key)
        if not isinstance(value, str) or not value or per_site or "{client}" in value:
            continue
        if not os.path.exists(value):
            raise DataError(
                f"{key} = {value!r} does not exist", "a file or folder", "check the path"
            )
    folder = overrides.get("run.folder")
    if not isinstance(folder, str) or not folder or used:
        return
    try:
        full = os.path.exists(folder) and bool(os.listdir(folder))
    except NotADirectoryError:
        full = True
    except OSError as error:
        raise _unusable("run.folder", folder, error) from None
    if full:
        raise SettingsError(
            f"run.folder = {folder!r} is in use", "a new or empty folder", "name one"
        )


def _unusable(key: str, place: object, error: OSError) -> SettingsError:
    given = f"{key} = {str(place)!r} ({error.strerror or error})"
    return SettingsError(given, "a folder that can be read and written", "choose another")


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
                "install llm-qfl again with pip",
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
        raise _unusable(key, place, error) from None
    return folder


def run_config(plan: Plan, folder: Path) -> dict[str, Scalar]:
    """Return Flower's run config: the user's overrides and the results folder."""
    known = flatten(plan.settings)
    config = {key: value for key, value in plan.overrides.items() if key in known}
    return {**config, "run.folder": str(folder)}


def resumed_plan(run: Path, assignments: Iterable[str], clients: int | None = None) -> Plan:
    """Check that an interrupted run can go on, and return what to start.

    Parameters
    ----------
    run : Path
        Its results folder.
    assignments : iterable of str
        ``key=value`` for what may differ from now on, for instance ``run.rounds``.
    clients : int, optional
        Nodes of the deployment that it is to go on with.

    Returns
    -------
    Plan
        With the run's own settings; its record is cut back to the last checkpoint.

    Raises
    ------
    UserError
        One line: no such run, one that has ended or still goes on, nothing to go on from, or a
        setting that would make another run of it.
    """
    folder = real_path(run)
    before = recorded_settings(folder)
    if read_json(folder / "summary.json").get("status") == "completed":
        raise UserError(
            f"the run in {str(folder)!r} is completed, and its test rows have been used",
            "a run that was interrupted or failed",
            "start a new run",
        )
    given = list(assignments)
    for key in (text.partition("=")[0].strip() for text in given):
        if key in ("run.folder", "run.resume") or not may_change(key):
            raise SettingsError(
                f"--set {key} with --resume",
                "run.rounds, stop.*, timeouts and budgets",
                f"leave {key} out, or start a new run",
            )
    default, now = flatten(Settings()), flatten(before)
    own = [f"{key}={toml_value(now[key])}" for key in now if now[key] != default[key]]
    here = f"run.folder={toml_value(str(folder))}"
    plan = make_plan([], [*own, *given, here, "run.resume=true"], None, clients)
    with alone(folder):
        found = last_checkpoint(folder)
        if found is None:
            raise UserError(no_checkpoint(folder))
        refuse_changes(before, plan.settings, found.number)
        plan = _with_changed_files(plan, read_json(folder / "config.json").get("code", {}))
        rewind(folder, found)
        _put_away_logs(folder / "logs")
    return plan


def _with_changed_files(plan: Plan, before: Mapping[str, str]) -> Plan:
    """Add a notice where a file of the user's own is not the one that the run began with."""
    now = digests(plan.settings)
    changed = sorted(name for name in before if now.get(name) != before[name])
    if not changed:
        return plan
    notice = f"{', '.join(changed)}: not what the run began with; it goes on with what is here"
    return replace(plan, notices=(*plan.notices, notice))


def _put_away_logs(logs: Path) -> None:
    """Move the logs of the run's earlier part into a folder of their own: ``logs/part-N``."""
    mine = [path for path in logs.glob("*.log") if path.is_file()]
    if mine:
        taken = [number for part in logs.glob("part-*") for _, number in by_number(part)]
        part = logs / f"part-{1 + max(taken, default=0)}"
        part.mkdir()
        for path in mine:
            path.rename(part / path.name)
