"""Packages that only some settings need: extras of the installation."""

from __future__ import annotations

from importlib.util import find_spec

from core.errors import SettingsError
from core.settings.schema import Settings


def check_extras(settings: Settings) -> None:
    """Refuse settings whose optional package is not installed.

    Raises
    ------
    SettingsError
        One line that names the setting and the extra.
    """
    agent, privacy = settings.agent, settings.privacy
    if agent.kind == "llm" and agent.decoding == "schema":
        _require("llguidance", "agents", "agent.decoding = 'schema'")
    if privacy.dp != "none" or privacy.moment_noise:
        setting = f"privacy.dp = {privacy.dp!r}" if privacy.dp != "none" else "privacy.moment_noise"
        _require("dp_accounting", "privacy", setting)


def _require(module: str, extra: str, setting: str) -> None:
    if find_spec(module) is None:
        raise SettingsError(
            f"{setting} needs the package {module.replace('_', '-')}, which is not installed",
            f"an installation with the extra {extra!r}",
            f"install with `pip install 'llm-qfl[{extra}]'`",
        )
