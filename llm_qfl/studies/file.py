"""STUDY.toml: a study as a file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import SettingsError
from core.settings.parsing import short_repr
from core.storage.files import read_file

KEYS: dict[str, tuple[type, ...]] = {
    "config": (str, list),
    "set": (dict,),
    "grid": (dict,),
    "search": (dict,),
    "seeds": (int, list),
    "reference": (str, int, float, list, dict),
    "target": (str, int, float),
    "margin": (int, float),
    "figures": (list,),
    "jobs": (int,),
    "folder": (str,),
    "runner": (str,),
}
"""Keys, and what each may be."""

NAMES = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


def read_study_file(file: Path) -> dict[str, Any]:
    """Read a study's file as the arguments of `llm_qfl.study`; ``set`` are its overrides.

    Raises
    ------
    SettingsError
        One line: no such file, no TOML, an unknown key, a value of another kind.
    """
    try:
        given = tomllib.loads(read_file(file).decode())
    except OSError as error:
        what = f"no study {str(file)!r} ({error.strerror or error})"
        raise SettingsError(what, "a TOML file (docs/studies.md)", "check the path") from None
    except (ValueError, RecursionError) as error:
        what = f"{str(file)!r} is not TOML ({error})"
        raise SettingsError(what, "TOML in UTF-8", "correct that line") from None
    for key, value in given.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "settings go into [set]"
            raise SettingsError(f"{file.name}: unknown key {key!r}", ", ".join(KEYS), fix)
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            shown = " or ".join(NAMES[kind] for kind in KEYS[key])
            raise SettingsError(f"{file.name}: {key} = {short_repr(value)}", shown, "change it")
    if not ("grid" in given) ^ ("search" in given):
        how = "both" if "grid" in given else "neither"
        raise SettingsError(
            f"{file.name}: {how} of [grid] and [search]", "one", "add or remove one"
        )
    _find_configs(given, file.parent)
    return {"folder": str(Path("runs") / file.stem), **given}


def _find_configs(given: Any, beside: Path) -> None:
    """Replace names of configurations that lie beside the file by their paths, in place."""
    if not isinstance(given, dict):
        return
    for key, value in given.items():
        if key == "config":
            names = value if isinstance(value, list) else [value]
            found = [str(beside / n) if (beside / str(n)).is_file() else n for n in names]
            given[key] = found
        elif isinstance(value, Mapping):
            _find_configs(value, beside)
