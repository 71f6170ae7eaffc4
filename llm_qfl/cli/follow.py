"""Reading a run's files while the run still writes them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from core import write_text
from core.storage.reading import parsed, salvage
from core.storage.records import Part
from llm_qfl.cli.formatting import one_line, plain_text

Event = dict[str, Any]


class Tail:
    """New lines of a JSONL file that another process appends to.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    kind : type of Part, optional
        What its lines are; events if absent.
    """

    def __init__(self, path: Path, kind: type[Part] | None = None) -> None:
        self._path, self._kind = path, kind
        self._read = 0
        self._rest = b""
        self.damaged = 0

    def new(self) -> list[Event]:
        """Return the objects of the lines finished since the last call.

        A last line without its newline waits for its end. A whole line that is damaged is
        counted in `damaged`, and what is wrong left out: progress must not die of it.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                fresh = file.read()
        except OSError:
            return []
        self._read += len(fresh)
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        return [event for line in lines if (event := self._parse(line)) is not None]

    def _parse(self, line: bytes) -> Event | None:
        if not line.strip():
            return None
        value, _ = parsed(line)
        found: list[str] = []
        right = None if value is None else salvage(self._kind, value, found)
        self.damaged += value is None or bool(found)
        return right


_SAID = re.compile(r"INFO\s*:\s+((?:client \d+|server): .+)$")


class ClientLines:
    """What the clients say of their progress, from the log that Flower and Ray write.

    Parameters
    ----------
    path : Path
        The run's log; it need not exist yet.
    begin : int
        Bytes that were there before: an earlier run's.
    """

    def __init__(self, path: Path, begin: int = 0) -> None:
        self._path = path
        self._read = begin
        self._seen: set[str] = set()

    def new(self) -> list[str]:
        """Return the clients' lines finished since the last call, each once and in order.

        A log that begins anew, as after a broken stream, is read from its beginning again.
        """
        try:
            if self._path.stat().st_size < self._read:
                self._read = 0
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")
        except OSError:
            return []
        self._read += len(whole[0]) + len(whole[1])
        plain = (plain_text(line.decode("utf-8", "replace")) for line in whole[0].splitlines())
        said = (match.group(1) for line in plain if (match := _SAID.search(line)))
        fresh = [line for line in dict.fromkeys(map(one_line, said)) if line not in self._seen]
        self._seen.update(fresh)
        return fresh


def read_log(path: Path, begin: int = 0) -> str:
    """Return a log without colour codes, from byte `begin` on; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(begin)
            lines = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
            return plain_text(lines.read())
    except OSError:
        return ""


def strip_log(path: Path) -> None:
    """Rewrite a finished log without colour codes."""
    text = read_log(path)
    if text:
        write_text(path, text)


def last_words(text: str) -> str:
    """Return a log's last line that says anything; of a box that Flower draws, all its lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[-1].startswith("╰"):
        top = max((at for at, line in enumerate(lines) if line.startswith("╭")), default=0)
        return " ".join(line.strip("│ ") for line in lines[top + 1 : -1])
    return lines[-1].removeprefix("Error: ") if lines else ""


_RAISED = re.compile(r"^(?:\([^)]*\)\s*)?((?:[A-Za-z_][\w.]*)?(?:Error|Exception|Interrupt): .+)$")


def last_error(text: str) -> str:
    """Return the last exception that a log reports, as ``Name: message``; empty if none."""
    for line in reversed(text.splitlines()):
        match = _RAISED.match(line.strip())
        if match:
            return match.group(1).strip()
    return ""
