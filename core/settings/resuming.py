"""The settings of an interrupted run, and which of them may change when it goes on."""

from __future__ import annotations

from pathlib import Path

from core.errors import SettingsError, UserError, explain
from core.settings.parsing import parse_settings
from core.settings.schema import FIELDS, Settings, flatten, traits, with_former
from core.storage.files import read_json


def may_change(key: str) -> bool:
    """Whether a setting may differ when a run goes on."""
    return traits(key).resumable


def recorded_settings(run: Path) -> Settings:
    """Return the settings that a run has written down.

    Raises
    ------
    UserError
        If the folder holds none, or none that this version knows.
    """
    if not run.is_dir():
        raise UserError(no_run(f"no folder {str(run)!r}"))
    tree = read_json(run / "config.json").get("settings")
    if not isinstance(tree, dict) or not all(isinstance(part, dict) for part in tree.values()):
        raise UserError(no_run(f"no settings in {str(run / 'config.json')!r}"))
    parts = with_former(tree).items()
    flat = {f"{section}.{key}": v for section, part in parts for key, v in part.items()}
    return parse_settings(flat)


def no_run(given: str) -> str:
    """Return the error text for a folder that holds no run."""
    return explain(given, "a run's results folder, for instance runs/latest", "name one")


def refuse_changes(before: Settings, now: Settings, done: int = 0) -> None:
    """Refuse settings that would make another run of the one that goes on.

    Parameters
    ----------
    before, now : Settings
        What the run began with, and what it is to go on with.
    done : int
        Rounds that are done.

    Raises
    ------
    SettingsError
        With the first such key.
    """
    if now.run.rounds < done:
        raise SettingsError(
            f"run.rounds = {now.run.rounds} in a run that has done {done}",
            f"at least {done}",
            "raise run.rounds, or leave it out",
        )
    old, new = flatten(before), flatten(now)
    for key in FIELDS:
        if old[key] != new[key] and not may_change(key):
            raise SettingsError(
                f"{key} = {new[key]!r} in a run that began with {old[key]!r}",
                f"changes of {', '.join(filter(may_change, FIELDS))} only",
                f"leave {key} as it was, or start a new run",
            )
