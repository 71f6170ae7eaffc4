"""From flat keys and values to the frozen settings tree, with one clear line on a mistake."""

from __future__ import annotations

import difflib
import json
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import SettingsError, UserError, unexpected_error
from core.formatting import join_list
from core.settings.checks import (
    IgnoredError,
    check_backend_names,
    check_combinations,
    check_conditions,
)
from core.settings.names import check_names
from core.settings.pennylane_options import parse_device_options, parse_noise
from core.settings.schema import FIELDS, Scalar, Settings, accepted, traits
from core.storage.files import read_file

FLOWER_NODE_KEYS = ("partition-id", "num-partitions", "site")
"""Node config keys that are no settings: a node's place and name."""


def parse_settings(
    run_config: Mapping[str, Any], node_config: Mapping[str, Any] | None = None
) -> Settings:
    """Build the settings from Flower's run config and, on a node, its node config.

    Parameters
    ----------
    run_config : Mapping
        Flat dotted keys; what is absent takes its default.
    node_config : Mapping, optional
        A node's own values; only keys documented as per node.

    Returns
    -------
    Settings
        Frozen and checked.

    Raises
    ------
    SettingsError
        For an unknown key, a wrong type, a value out of bounds, a key that may not differ
        per node, or a value that would be ignored. One line.
    """
    own = {k: v for k, v in (node_config or {}).items() if k not in FLOWER_NODE_KEYS}
    settings = _validated({**run_config, **own}, own)
    # What the run sets for all nodes may have no effect on one with a backend of its own.
    check_conditions(settings, FIELDS if node_config is None else own)
    check_combinations(settings, at_node=node_config is not None)
    return settings


def parse_run(
    files: Iterable[Path],
    assignments: Iterable[str],
    unset: Iterable[str] = (),
    notices: list[str] | None = None,
) -> tuple[Settings, dict[str, Scalar]]:
    """Read config files and ``key=value`` assignments, later ones winning.

    A later file or assignment may leave an earlier file's key without effect: that key is dropped,
    with a notice. What would be ignored by something given in the same place is refused.

    Parameters
    ----------
    files : iterable of Path
        TOML files with tables named like the sections.
    assignments : iterable of str
        ``key=value``; the value is read as TOML, else taken as plain text.
    unset : iterable of str
        Keys of the files that go back to their defaults.
    notices : list of str, optional
        Takes one line for each key that was dropped.

    Returns
    -------
    tuple
        The settings, and the flat overrides that were given.

    Raises
    ------
    SettingsError
        As `parse_settings`; for a missing or malformed file or assignment; and for a key of
        `unset` that no file sets.
    """
    layers = [(str(path), read_toml(path)) for path in map(Path, files)]
    known = dict.fromkeys(key for _, values in layers for key in values)
    back: dict[str, Any] = {}
    for key in unset:
        if key not in FIELDS:
            raise _unknown(key)
        if key not in known:
            there = ", ".join(known) or "keys of a --config file"
            raise SettingsError(f"--unset {key}", there, "leave it out")
        del known[key]
        back[key] = None
    own = dict(parse_assignment(text, "--set") for text in assignments)
    return parse_layers([*layers, ("the command line", back | own)], notices)


def parse_layers(
    layers: Sequence[tuple[str, Mapping[str, Any]]], notices: list[str] | None = None
) -> tuple[Settings, dict[str, Scalar]]:
    """Build the settings from several places, later ones winning, as `parse_run` does.

    Parameters
    ----------
    layers : sequence of (str, Mapping)
        A place's name, for the notices, and its values by dotted key; None: back to the default.
    notices : list of str, optional
        Takes one line for each key that was dropped.
    """
    places = {key: place for place, (_, values) in enumerate(layers) for key in values}
    merged = {key: layers[place][1][key] for key, place in places.items()}
    given = {key: value for key, value in merged.items() if value is not None}
    while True:
        try:
            return parse_settings(given), given
        except IgnoredError as error:
            why = max(places.get(key, -1) for key in error.by)
            if places.get(error.key, -1) >= why:
                raise
            if notices is not None:
                name = layers[places[error.key]][0]
                notices.append(f"{name}: {str(error).split(';')[0]}; dropped")
            del given[error.key]
            places[error.key] = why


def parse_node(assignments: Iterable[str], option: str = "--node-set") -> dict[str, Scalar]:
    """Read ``key=value`` assignments of one node: settings that may differ per node, or its name.

    Whether a value has an effect depends on the run: the node checks that when a run comes.

    Raises
    ------
    SettingsError
        As `parse_settings`, for a key, type or bound; and for a malformed assignment.
    """
    given = dict(parse_assignment(text, option) for text in assignments)
    own = {key: value for key, value in given.items() if key != "site"}
    _validated(own, own)
    if not isinstance(given.get("site", ""), str):
        raise SettingsError(f"site = {given['site']!r}", "text", "quote it")
    return given


def settings_command(work: Callable[[Settings], Any]) -> int:
    """Do some work for the flat settings on stdin, in JSON, and print its result as JSON.

    For modules that the launcher starts as processes of their own.

    Parameters
    ----------
    work : callable
        From settings to what JSON can hold.

    Returns
    -------
    int
        Exit code; the last line on stderr says why it is not 0: 2 for a user's mistake, 1 for the
        failure of any library, whose traceback stands above.
    """
    try:
        print(json.dumps(work(parse_settings(json.load(sys.stdin)))), flush=True)
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)
        return 2
    except Exception as error:
        traceback.print_exc()
        print(unexpected_error(error), file=sys.stderr, flush=True)
        return 1
    return 0


def _validated(flat: Mapping[str, Any], node_config: Mapping[str, Any]) -> Settings:
    """Build the tree from flat keys; each key is checked by itself."""
    for key in node_config:
        if key in FIELDS and not traits(key).per_node:
            allowed = ", ".join(key for key in FIELDS if traits(key).per_node)
            fix = "set it for the whole run instead"
            raise SettingsError(f"node config sets {key}", allowed, fix)
    tree: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        if key not in FIELDS:
            raise _unknown(key)
        if isinstance(value, int) and abs(value) >= 2**63:  # Flower's messages carry 64 bits
            given = f"{key} = {short_repr(value)}"
            raise SettingsError(given, accepted(key), "name a smaller number")
        section, _, leaf = key.partition(".")
        tree.setdefault(section, {})[leaf] = value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"][:2]))  # behind it: which part of a union
        given = f"{key} = {short_repr(problem['input'])}"
        raise SettingsError(given, accepted(key), "see docs/settings.md") from None
    check_names(settings)
    check_backend_names(settings)
    parse_device_options(settings.quantum.device_options)
    parse_noise(settings.quantum.noise)
    return settings


def _unknown(key: str) -> SettingsError:
    near = difflib.get_close_matches(key[:60], FIELDS, n=1, cutoff=0.5)
    leaf = key.rpartition(".")[2]
    same_leaf = [known for known in FIELDS if known.rpartition(".")[2] == leaf]
    guess = (same_leaf or near or ["run.rounds"])[0]
    return SettingsError(
        f"unknown setting {short_repr(key)}",
        "the keys of docs/settings.md",
        f"did you mean {guess!r}?",
    )


def parse_assignment(text: str, option: str) -> tuple[str, Scalar]:
    """Split ``key=value``; the value is TOML, or a plain text."""
    key, sign, raw = (part.strip() for part in text.partition("="))
    if not sign or not key:
        example = "quantum.backend=exact" if option == "--node-set" else "run.rounds=5"
        fix = f"write for instance {option} {example}"
        raise SettingsError(f"{option} {short_repr(text)}", "key=value", fix)
    quoted = raw.startswith(("'", '"') + ("[",) * traits(key).listed)
    if key in FIELDS and FIELDS[key].annotation is str and not quoted:
        return key, raw
    try:
        return key, _joined(key, tomllib.loads(f"value = {raw}")["value"])
    except (ValueError, RecursionError):
        return key, raw


def read_toml(path: Path) -> dict[str, Scalar]:
    """Read the tables of a file as flat dotted keys."""
    try:
        tree = tomllib.loads(read_file(path).decode())
    except OSError as error:
        given = f"no config file {str(path)!r} ({error.strerror or error})"
        raise SettingsError(given, "a TOML file", "check the path") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 3,000 brackets
        given = f"{str(path)!r} is not TOML ({short_repr(str(error))[1:-1]})"
        raise SettingsError(given, "TOML in UTF-8", "correct that line") from None
    flat: dict[str, Scalar] = {}
    for section, table in tree.items():
        if isinstance(table, dict):
            flat |= {
                f"{section}.{leaf}": _joined(f"{section}.{leaf}", table[leaf]) for leaf in table
            }
        else:
            flat[section] = table
    return flat


def _joined(key: str, value: Any) -> Any:
    """Write an array of a key that takes a list as the text that Flower's run config can hold."""
    return join_list(value) if traits(key).listed and isinstance(value, list) else value


def short_repr(value: Any, most: int = 100) -> str:
    """Return a value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
