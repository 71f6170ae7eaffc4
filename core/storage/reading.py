"""Reads the files of a run folder, damaged ones too.

What is wrong is left out and named, with its file and line or place, and what is right is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.storage.files import read_file
from core.storage.records import AdapterEvent, End, Part, Prepared, Resumed, Round, Trained

EVENTS: dict[str, type[Part]] = {
    "prepared": Prepared,
    "client": Trained,
    "round": Round,
    "resumed": Resumed,
    "end": End,
    "adapter-begin": AdapterEvent,
    "adapter": AdapterEvent,
}
"""Models of the lines of ``metrics.jsonl``, by their ``event``."""

MOST = 20
"""Faults of a file that are named; more are counted."""


class Reader:
    """Reads the files of a run folder and remembers what is wrong with them.

    Parameters
    ----------
    folder : Path
        The run folder.

    Attributes
    ----------
    damaged : list of str
        What is wrong, each with its file and line or place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []

    def file(self, name: str, kind: type[Part]) -> dict[str, Any]:
        """Return what is right of a JSON file; empty if there is none."""
        if (text := self.content(name)) is None:
            return {}
        return self._record(text, kind, name, self.damaged) or {}

    def lines(self, name: str, kind: type[Part] | None = None) -> Iterator[dict[str, Any]]:
        """Yield what is right of each line of a JSONL file; of an event by its own model.

        A last line without an end is still being written, or was cut off: it is left out.
        """
        found: list[str] = []
        for number, text in enumerate((self.content(name) or b"").split(b"\n")[:-1], 1):
            value = self._record(text, kind, f"{name} line {number}", found)
            if value is not None:
                yield value
        self.damaged += found[:MOST]
        if len(found) > MOST:
            self.damaged.append(f"{name}: {len(found) - MOST} faults more")

    def content(self, name: str) -> bytes | None:
        """Return a file's content; None if there is none, or it cannot be read."""
        try:
            return read_file(self.folder / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.damaged.append(f"{name}: {error.strerror}")
            return None

    def _record(
        self, text: bytes, kind: type[Part] | None, where: str, damaged: list[str]
    ) -> dict[str, Any] | None:
        value, why = parsed(text)
        if value is None:
            damaged.append(f"{where}: {why}")
            return None
        found: list[str] = []
        right = salvage(kind, value, found)
        damaged += [f"{where}: {one}" for one in found]
        return right


def parsed(text: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON object that a text is, or None and why it is none."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f" in line {error.lineno}" if error.lineno > 1 else ""
        return None, f"no JSON{place} ({error.msg})"
    except UnicodeDecodeError:
        return None, "no text in UTF-8"
    except (ValueError, RecursionError):
        return None, "no JSON (thousands of digits or brackets in a row)"
    return (value, "") if isinstance(value, dict) else (None, "no JSON object")


def salvage(
    kind: type[Part] | None, value: dict[str, Any], damaged: list[str]
) -> dict[str, Any] | None:
    """Take out of a record what its model does not allow.

    Parameters
    ----------
    kind : type of Part or None
        What the record should be; None: what its ``event`` says.
    value : dict
        The record; it is changed.
    damaged : list of str
        Gets what was wrong, each with its place.

    Returns
    -------
    dict or None
        What is right of it; None if what it cannot be without is missing or wrong.
    """
    model = kind or EVENTS.get(str(value.get("event")), Part)
    while True:
        try:
            model.model_validate(value)
            return value
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
        dropped: set[tuple[int | str, ...]] = set()
        for one in reversed(found):  # so that later elements of a list go first
            place = one["loc"]
            damaged.append(f"{'.'.join(map(str, place)) or 'it'}: {one['msg']}")
            whole = place[:-1] if one["type"] == "missing" or place[-1:] == ("[key]",) else place
            if not whole:
                return None
            if not any(whole[:n] in dropped for n in range(1, len(whole) + 1)):
                dropped.add(whole)
                _take_out(value, whole)


def first_fault(error: ValidationError) -> str:
    """Return the place and the reason of a validation's first error."""
    one = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}"


def _take_out(value: Any, place: tuple[int | str, ...]) -> None:
    for step in place[:-1]:
        value = value[step]
    del value[place[-1]]
