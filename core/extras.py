"""Packages that only some settings need: extras of the installation."""

from __future__ import annotations

from importlib.util import find_spec

from core.errors import SettingsError
from core.registry import modules_of
from core.settings.derived import agent_declares
from core.settings.schema import Settings


def tracker_names(settings: Settings) -> tuple[str, ...]:
    """Return the run's trackers (`run.track`), each once.

    Raises
    ------
    SettingsError
        For one that there is not.
    """
    named = dict.fromkeys(filter(None, (n.strip() for n in settings.run.track.split(","))))
    known = modules_of("reporting.trackers")
    for name in named:
        if name not in known:
            given = f"run.track = {settings.run.track!r}"
            raise SettingsError(given, f"a list of {', '.join(known)}", f"correct {name!r}")
    return tuple(named)


def check_extras(settings: Settings) -> None:
    """Refuse settings whose optional package is not installed.

    Raises
    ------
    SettingsError
        One line that names the setting and the extra.
    """
    privacy = settings.privacy
    if needed := agent_declares(settings, "package"):
        _require(*needed)
    if privacy.dp != "none" or privacy.moment_noise:
        setting = f"privacy.dp = {privacy.dp!r}" if privacy.dp != "none" else "privacy.moment_noise"
        _require("dp_accounting", "privacy", setting)
    for name in tracker_names(settings):  # a tracker, its package and its extra have one name
        _require(name, name, f"run.track = {name!r}")


def _require(module: str, extra: str, setting: str) -> None:
    if find_spec(module) is None:
        raise SettingsError(
            f"{setting} needs the package {module.replace('_', '-')}, which is not installed",
            f"an installation with the extra {extra!r}",
            f"install with `pip install 'llm-qfl[{extra}]'`",
        )
