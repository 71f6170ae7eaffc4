"""What is on record of the run that a model comes from, without what names a place or a user."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import create_model

from core import DataError
from core.storage.reading import Reader
from core.storage.record_types import Count, Counts, Names, Setting
from core.storage.records import Part, Summary

RUN_FILE = "run.json"
"""What a saved model says of its run."""

PRIVATE = (
    *("data.path", "data.test_path", "data.unlabelled", "hardware.account", "llm.store"),
    *("run.folder", "run.output", "run.resume"),
)
"""Settings that say something of a machine or of its user: they do not travel."""


_TEXTS: Any = dict.fromkeys(
    ("outcome", "data", "model", "features", "commit", "started", "settings_sha256"), (str, "")
)
_TABLES: Any = dict.fromkeys(("versions", "code"), (dict[str, str], {}))
_LISTS: Any = {"rows": (Counts, []), "warnings": (Names, []), "parameters": (Count, 0)}
_PARTS: Any = {"summary": (Summary, Summary()), "settings": (dict[str, Setting], {})}
RunFile = create_model("RunFile", __base__=Part, **_TEXTS, **_TABLES, **_LISTS, **_PARTS)
"""``run.json``: what is on record of the run that a model comes from."""


def run_facts(folder: Path) -> dict[str, Any]:
    """Return what is on record of a model's run, in its results folder or in a saved model.

    Returns
    -------
    dict
        As `RunFile`; empty where the folder has no record. Nothing in it names a file, a folder or
        an account.
    """
    if (folder / RUN_FILE).is_file():
        return Reader(folder).file(RUN_FILE, RunFile)
    from reporting.formatting import outcome
    from reporting.record import read_record

    try:
        record = read_record(folder)
    except DataError:
        return {}
    ready, config, summary = record.prepared, record.config, dict(record.summary)
    tree = config.get("settings", {}).items()
    settings = {f"{name}.{k}": _public(v) for name, part in tree for k, v in part.items()}
    settings = {key: value for key, value in settings.items() if key not in PRIVATE}
    written = json.dumps(settings, sort_keys=True).encode()
    summary.pop("teachers", None)
    return {
        "outcome": outcome(record),
        **{key: ready[key] for key in ("data", "model", "features", "parameters") if key in ready},
        "rows": [site.get("train_rows", 0) for site in ready.get("clients", [])],
        "warnings": [*(ready.get("warnings") or []), *(summary.get("warnings") or [])],
        "summary": summary,
        **{key: config[key] for key in ("commit", "versions", "code", "started") if key in config},
        "settings": settings,
        "settings_sha256": hashlib.sha256(written).hexdigest(),
    }


def _public(value: Any) -> Any:
    """Return a setting without the folders of a path in it; a hub id has one slash inside."""
    path = isinstance(value, str) and (value.startswith(("/", "~", ".")) or value.count("/") > 1)
    return value.rstrip("/").rpartition("/")[2] if path else value
