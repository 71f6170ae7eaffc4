"""What an interrupted run was set to, and what may be set otherwise when it goes on."""

from __future__ import annotations

from pathlib import Path

from core.errors import SettingsError, UserError, explain
from core.settings.parsing import fields, flatten, parse_settings
from core.settings.schema import Settings
from core.storage.files import read_json

MAY_CHANGE = (
    "run.folder",
    "run.min_replies",
    "run.output",
    "run.report",
    "run.resume",
    "run.round_timeout",
    "run.rounds",
    "run.wait_seconds",
    "llm.store",
    "agent.timeout",
    "hardware.account",
    "stop.",
    "hardware.budget_",
)
"""Keys, and beginnings of keys, that change none of the rounds that are done."""


def may_change(key: str) -> bool:
    """Whether a setting may differ when a run goes on."""
    return any(key.startswith(one) if one[-1] in "._" else key == one for one in MAY_CHANGE)


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
    flat = {f"{section}.{key}": v for section, part in tree.items() for key, v in part.items()}
    return parse_settings(flat)


def no_run(given: str) -> str:
    """Say that a folder holds no run."""
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
    was, is_ = flatten(before), flatten(now)
    for key, _ in fields():
        if was[key] != is_[key] and not may_change(key):
            allowed = ", ".join(one + "*" if one[-1] in "._" else one for one in MAY_CHANGE)
            raise SettingsError(
                f"{key} = {is_[key]!r} in a run that began with {was[key]!r}",
                f"changes of {allowed} only",
                f"leave {key} as it was, or start a new run",
            )
