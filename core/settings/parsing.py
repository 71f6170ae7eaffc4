"""From flat keys and values to the frozen settings tree, with one clear line on a mistake."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from core.errors import IgnoredError, SettingsError, UserError, explain, unexpected_error
from core.formatting import join_list, wanted
from core.settings.backends import backend_names
from core.settings.contradictions import refuse_contradictions, refuse_unknown_backends
from core.settings.declare import Section
from core.settings.pennylane_options import parse_device_options, parse_noise
from core.settings.schema import Settings
from core.storage.files import read_file

Scalar = bool | int | float | str
"""What Flower's run config and node config can hold."""

FLOWER_NODE_KEYS = ("partition-id", "num-partitions", "site")
"""Node config keys that are no settings: a node's place and name."""


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key of the tree with its field, in documented order."""
    for name, section in Settings.model_fields.items():
        model = section.annotation
        if isinstance(model, type) and issubclass(model, Section):
            for key, field in model.model_fields.items():
                yield f"{name}.{key}", field


def flatten(settings: Settings) -> dict[str, Scalar]:
    """Return the tree as flat dotted keys, as Flower's run config holds it."""
    tree = settings.model_dump()
    return {key: tree[key.split(".")[0]][key.split(".")[1]] for key, _ in fields()}


def meta(field: FieldInfo) -> dict[str, Any]:
    """Return what `settings.setting` noted of a key: ``used_when`` and ``per_node``."""
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def accepted(field: FieldInfo) -> str:
    """Say in words which values a key takes."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(str(choice) for choice in get_args(kind))
    words: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    bounds = [
        f"{word} {limit}"
        for item in field.metadata
        for attr, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if (limit := getattr(item, attr, None)) is not None
    ]
    return " ".join([words.get(kind, "text"), *[" and ".join(bounds)] * bool(bounds)])


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
    _refuse_foreign(own)
    settings = _validated({**run_config, **own})
    known = dict(fields())
    refuse_unknown_backends(settings)
    # What the run sets for all nodes may have no effect on one with a backend of its own.
    _refuse_ignored(settings, set(known if node_config is None else node_config))
    refuse_contradictions(settings, at_node=node_config is not None)
    parse_device_options(settings.quantum.device_options)
    parse_noise(settings.quantum.noise)
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
    given: dict[str, Scalar] = {}
    places: dict[str, int] = {}  # where a key was set last: the file's number; the command line
    paths = [Path(path) for path in files]
    for place, path in enumerate(paths):
        held = _read_toml(path)
        given.update(held)
        places.update(dict.fromkeys(held, place))
    for key in unset:
        if key not in given:
            raise SettingsError(_not_set(key, given))
        del given[key]
        places[key] = len(paths)
    own = dict(_assignment(text, "--set") for text in assignments)
    given.update(own)
    places.update(dict.fromkeys(own, len(paths)))
    while True:
        try:
            return parse_settings(given), given
        except IgnoredError as error:
            why = max(places.get(key, -1) for key in error.by)
            if places.get(error.key, -1) >= why:
                raise
            if notices is not None:
                notices.append(f"{paths[places[error.key]]}: {str(error).split(';')[0]}; dropped")
            del given[error.key]
            places[error.key] = why


def settings_command(work: Callable[[Settings], Any]) -> int:
    """Do some work for the flat settings that come as JSON, and print what it returns as JSON.

    What modules do that the launcher calls as processes of their own.

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


def _not_set(key: str, given: Mapping[str, Scalar]) -> str:
    known = dict(fields())
    if key not in known:
        return _unknown(key, known)
    return explain(f"--unset {key}", ", ".join(given) or "keys of a --config file", "leave it out")


def parse_node(assignments: Iterable[str]) -> dict[str, Scalar]:
    """Read ``key=value`` assignments of one node: settings that may differ per node, or its name.

    Whether a value has an effect depends on the run, so that is judged at the node when one comes.

    Raises
    ------
    SettingsError
        As `parse_settings`, for a key, type or bound; and for a malformed assignment.
    """
    given = dict(_assignment(text, "--node-set") for text in assignments)
    own = {key: value for key, value in given.items() if key != "site"}
    _refuse_foreign(own)
    settings = _validated(own)
    refuse_unknown_backends(settings)
    parse_device_options(settings.quantum.device_options)
    parse_noise(settings.quantum.noise)
    if not isinstance(given.get("site", ""), str):
        raise SettingsError(f"site = {given['site']!r}", "text", "quote it")
    return given


def _refuse_foreign(node_config: Mapping[str, Any]) -> None:
    """Refuse settings in a node's own config that all nodes must share."""
    known = dict(fields())
    for key in node_config:
        if key in known and not meta(known[key]).get("per_node"):
            allowed = ", ".join(k for k, f in known.items() if meta(f).get("per_node"))
            raise SettingsError(
                f"node config sets {key}", allowed, "set it for the whole run instead"
            )


def _validated(flat: Mapping[str, Any]) -> Settings:
    """Build the tree from flat keys; each key's own bounds are checked, combinations are not."""
    known = dict(fields())
    tree: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        field = known.get(key)
        if field is None:
            raise SettingsError(_unknown(key, known))
        if isinstance(value, int) and abs(value) >= 2**63:  # Flower's messages carry 64 bits
            raise SettingsError(
                f"{key} = {short_repr(value)}", accepted(field), "name a smaller number"
            )
        section, _, leaf = key.partition(".")
        tree.setdefault(section, {})[leaf] = _coerced(field, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_first(error, known)) from None


def _assignment(text: str, option: str) -> tuple[str, Scalar]:
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        example = "quantum.backend=exact" if option == "--node-set" else "run.rounds=5"
        raise SettingsError(
            f"{option} {short_repr(text)}", "key=value", f"write for instance {option} {example}"
        )
    return key.strip(), _toml_value(key.strip(), raw.strip())


def _read_toml(path: Path) -> dict[str, Scalar]:
    try:
        tree = tomllib.loads(read_file(path).decode())
    except OSError as error:
        why = error.strerror or str(error)
        raise SettingsError(
            f"no config file {str(path)!r} ({why})", "a TOML file", "check the path"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 3,000 brackets
        why = short_repr(str(error))[1:-1]
        raise SettingsError(
            f"{str(path)!r} is not TOML ({why})", "TOML in UTF-8", "mend that line"
        ) from None
    flat: dict[str, Scalar] = {}
    for section, table in tree.items():
        if not isinstance(table, dict):
            flat[section] = table
            continue
        for key, value in table.items():
            flat[f"{section}.{key}"] = _joined(f"{section}.{key}", value)
    return flat


def _toml_value(key: str, raw: str) -> Scalar:
    field = dict(fields()).get(key)
    listed = field is not None and meta(field).get("listed")
    starts = "\"'[" if listed else "\"'"
    if field is not None and field.annotation is str and raw[:1] not in starts:
        return raw
    try:
        value: Scalar = _joined(key, tomllib.loads(f"value = {raw}")["value"])
    except (ValueError, RecursionError):
        return raw
    return value


def _joined(key: str, value: Any) -> Any:
    """Write an array of a key that takes a list as the text that Flower's run config can hold."""
    field = dict(fields()).get(key)
    listed = field is not None and meta(field).get("listed")
    return join_list(value) if listed and isinstance(value, list) else value


def _coerced(field: FieldInfo, value: Any) -> Any:
    """Let a whole number stand where a number is wanted; nothing else is bent."""
    if field.annotation is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # too large: refused as it is
            return float(value)
    return value


def _unknown(key: str, known: Mapping[str, FieldInfo]) -> str:
    near = difflib.get_close_matches(key[:60], known, n=1, cutoff=0.5)
    leaf = key.rpartition(".")[2]
    same_leaf = [k for k in known if k.rpartition(".")[2] == leaf]
    guess = (same_leaf or near or ["run.rounds"])[0]
    return explain(
        f"unknown setting {short_repr(key)}",
        "the keys of docs/settings.md",
        f"did you mean {guess!r}?",
    ).replace("?.", "?")


def _first(error: ValidationError, known: Mapping[str, FieldInfo]) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    takes = accepted(known[key]) if key in known else "a table of settings"
    return explain(f"{key} = {short_repr(problem['input'])}", takes, "see docs/settings.md")


def short_repr(value: Any, most: int = 100) -> str:
    """Return a value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _holds(value: Any, test: tuple[Any, ...] | list[Any] | str) -> bool:
    if test == ">0":
        return bool(value > 0)
    if test == "<1":
        return bool(value < 1)
    if isinstance(test, str) and test[:1] == "!":
        return bool(value != test[1:])
    if isinstance(test, str) and test[:1] == "^":
        starts = tuple(test[1:].split("|"))
        return any(name.startswith(starts) for name in backend_names(value))
    return value in test


def _why_ignored(
    key: str, flat: Mapping[str, Scalar], known: Mapping[str, FieldInfo]
) -> tuple[str, str] | None:
    """Return (the governing key, what it must be) if `key` has no effect here, else None."""
    for other, test in meta(known[key]).get("used_when", []):
        # A governing key that is itself unused is at its default, or refused on its own account.
        if not _holds(flat[other], test):
            return other, wanted(test)
    return None


def _refuse_ignored(settings: Settings, looked_at: Collection[str]) -> None:
    flat = flatten(settings)
    known = dict(fields())
    for key, field in known.items():
        if flat[key] == field.default or key not in looked_at:
            continue
        why = _why_ignored(key, flat, known)
        if why is not None:
            other, wanted_value = why
            message = explain(
                f"{key} = {flat[key]!r} would be ignored because {other} = {flat[other]!r}",
                f"{other} = {wanted_value}",
                f"remove {key} or change {other}",
            )
            raise IgnoredError(message, key, (other,))


def with_run_name(settings: Settings, file: Path | None = None) -> Settings:
    """Return the settings with a run's name: their own, the config file's, or the data's."""
    if settings.run.name:
        return settings
    data = settings.data
    place = data.path.replace("{client}", "") or (
        data.hub_name if data.source == "genomic" else data.task
    )
    found = file or Path("dna-demo" if data.source == "dna-demo" else place)
    stem = found.stem.replace("{client}", "")
    name = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-.")[:60] or data.source
    run = settings.run.model_copy(update={"name": name})
    return settings.model_copy(update={"run": run})
