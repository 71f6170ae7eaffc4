"""From what a user writes in Python to the settings of a run: files, dicts, keywords, objects."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core import (
    FIELDS,
    SECTIONS,
    Settings,
    SettingsError,
    flatten,
    may_change,
    parse_layers,
    read_json,
    with_run_name,
)
from core.formatting import join_list, toml_value
from core.registry import OWN_FILE, POINTS, names, own_file, register, registered
from core.settings.parsing import read_toml, short_repr
from core.settings.schema import traits
from llm_qfl.cli.shipped import config_file

Folder = str | os.PathLike[str]

SETTING_POINTS = {point.setting: point.name for point in POINTS.values()}
"""The extension point of each setting that names an extension."""


class Configured(NamedTuple):
    """A run's settings, and what was dropped of earlier layers; a line each."""

    settings: Settings
    notices: tuple[str, ...]


def configure(
    config: Any, overrides: Mapping[str, Any], there: Mapping[str, Any] | None = None
) -> Configured:
    """Read a configuration and keyword arguments, which win.

    Parameters
    ----------
    config : str, Path, Mapping, Settings, sequence of these, or None
        A TOML file, or a shipped one by its name; values by dotted key, by a key's last part, or
        by section; later ones win.
    overrides : Mapping
        More values. An extension may be an object in place of its name.
    there : Mapping, optional
        What a deployment says by dotted key; it wins over `config`.

    Raises
    ------
    SettingsError
        One line: an unknown or ambiguous key, a value that is not accepted.
    """
    parts = config if isinstance(config, list | tuple) else [config]
    layers = [layer for part in parts for layer in _layer(part)]
    layers += [("the deployment", there or {}), ("the keyword arguments", flat_values(overrides))]
    notices: list[str] = []
    settings, _ = parse_layers(layers, notices)
    files = [part for part in parts if isinstance(part, str | os.PathLike)]
    named = with_run_name(settings, config_file(Path(files[-1])) if files else None)
    return Configured(named, tuple(notices))


def _layer(part: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a configuration's name and its flat values."""
    if isinstance(part, Settings):
        yield "the Settings", flatten(part)
    elif isinstance(part, Mapping):
        yield "the configuration", flat_values(part)
    elif isinstance(part, str | os.PathLike):
        path = config_file(Path(part))
        yield str(path), read_toml(path)
    elif part is not None:
        accepted = "a TOML file, a shipped name such as 'demo', a dict, Settings, or None"
        raise SettingsError(f"config = {short_repr(part)}", accepted, "give one of them")


def flat_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted key; what a key takes is checked later."""
    found: dict[str, Any] = {}
    for key, value in _pairs(values):
        if key in found:
            raise SettingsError(f"{key} twice", "a key once", "leave one of them out")
        found[key] = _plain(key, value)
    return found


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values as they were given."""
    for key, value in values.items():
        if key in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{key}.{leaf}", inner) for leaf, inner in value.items())
        else:
            yield dotted_key(key, value), value


def dotted_key(key: str, value: Any = ...) -> str:
    """Return the dotted key that a keyword means.

    An extension point's name is its setting (``agent`` is ``agent.kind``); a key of the section
    ``run`` needs no section; nor does the last part of any other key that has no namesake.

    Examples
    --------
    >>> dotted_key("rounds"), dotted_key("agent"), dotted_key("qubits")
    ('run.rounds', 'agent.kind', 'quantum.qubits')
    """
    if key in POINTS:
        return POINTS[key].setting
    if "." in key:
        return key
    if f"run.{key}" in FIELDS:
        return f"run.{key}"
    given = key if value is ... else f"{key} = {short_repr(value)}"
    if key in SECTIONS:
        leaf = next(iter(SECTIONS[key].model_fields))
        raise SettingsError(
            given, "a dict of its keys", f"write for instance {key}={{{leaf!r}: …}}"
        )
    same = [known for known in FIELDS if known.partition(".")[2] == key]
    if len(same) > 1:
        section = same[0].partition(".")[0]
        fix = f"write {section}={{{key!r}: …}} or **{{{same[0]!r}: …}}"
        raise SettingsError(f"{given}, which several sections have", ", ".join(same), fix)
    return same[0] if same else key


def _plain(key: str, value: Any) -> Any:
    """Return a value as the settings hold it: numpy's numbers, paths, lists, extensions."""
    if hasattr(value, "dtype") and hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple) and traits(key).listed:
        return join_list([str(one) for one in value])
    if key in SETTING_POINTS and not isinstance(value, str | None):
        return extension_name(SETTING_POINTS[key], value)
    return value


def extension_name(point: str, extension: Any) -> str:
    """Return a name by which settings can mean an object, registering it if need be.

    A class or function of a file in the working folder is ``module:attribute``, by which other
    processes find it too; anything else has a name in this process alone.

    Raises
    ------
    SettingsError
        If it is a plain value, which cannot be an extension.
    """
    known = POINTS[point]
    if isinstance(extension, bool | int | float | bytes | Mapping | list | tuple | set):
        accepted = f"a name, or {known.expected}"
        given = f"{known.setting} = {short_repr(extension)}"
        raise SettingsError(given, accepted, "give one of them")
    module = getattr(extension, "__module__", "") or ""
    path = f"{module}:{getattr(extension, '__qualname__', '')}"
    if OWN_FILE.fullmatch(path) and own_file(path) and _at(path) is extension:
        return path
    of = extension if hasattr(extension, "__qualname__") else type(extension)
    base = re.sub(r"[^\w-]+", "-", of.__qualname__.rpartition(">.")[2], flags=re.ASCII).strip("-_")
    name, number = base if base[:1].isalpha() else f"my-{point}", 1
    base = name
    while not _may_have(point, name, extension):
        number += 1
        name = f"{base}-{number}"
    register(point, name, extension)
    return name


def _may_have(point: str, name: str, extension: Any) -> bool:
    """Whether a name is free, the object's own, or that of an earlier version of its cell."""
    holder = registered(point, name)
    if holder is None:
        return name not in names(point)
    identity = getattr(extension, "__module__", ""), getattr(extension, "__qualname__", "<>")
    of_holder = getattr(holder, "__module__", ""), getattr(holder, "__qualname__", "")
    return holder is extension or (identity == of_holder and "<" not in identity[1])


def _at(path: str) -> Any:
    """Return what ``module:attribute`` is in this process; None if it is not there."""
    module, _, attribute = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found


def new_settings(
    config: Any, overrides: Mapping[str, Any], there: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings of a new run; say what was dropped (`configure`)."""
    settings, notices = configure(config, overrides, there)
    for notice in notices:
        print(f"llm-qfl: {notice}", file=sys.stderr)
    return settings


def changes(config: Any, folder: Path, overrides: Mapping[str, Any]) -> list[str]:
    """Return what differs in a run that goes on, as `llm_qfl.cli.plan` takes it.

    An object takes the name that the run knows it by: a new process has not registered it yet.

    Raises
    ------
    SettingsError
        For what cannot change.
    """
    if config is not None:
        accepted = "a run goes on with its own settings"
        raise SettingsError("config with resume", accepted, "leave it out, or start a new run")
    recorded = read_json(folder / "config.json").get("settings") or {}
    given = []
    for key, value in _pairs(overrides):
        section, _, leaf = key.partition(".")
        if key in SETTING_POINTS and not isinstance(value, str):
            name = str(recorded.get(section, {}).get(leaf))
            register(SETTING_POINTS[key], name, value, replace=True)
        elif key in ("run.folder", "run.resume") or not may_change(key):
            accepted = "rounds, stop rules, timeouts and budgets"
            fix = f"leave {key} out, or start a new run"
            raise SettingsError(f"{key} of a run that goes on", accepted, fix)
        else:
            given.append(f"{key}={toml_value(_plain(key, value))}")
    return given
