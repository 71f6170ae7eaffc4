"""Reading a run's files while the run still writes them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core import write_text
from core.storage.reading import parsed, salvage
from core.storage.records import Part
from llm_qfl.cli.formatting import one_line, plain_text

Event = dict[str, Any]


class Lines:
    """The new lines of a file that another process appends to; it need not exist yet.

    A last line without its newline waits for its end. A file that begins anew, as a log after a
    broken stream, is read from its beginning again.

    Parameters
    ----------
    path : Path
        The file.
    begin : int
        Bytes that were there before: an earlier run's.
    """

    def __init__(self, path: Path, begin: int = 0) -> None:
        self._path, self._read = path, begin

    def new(self) -> Iterator[bytes]:
        """Yield the lines finished since the last call."""
        try:
            if self._path.stat().st_size < self._read:
                self._read = 0
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole = b"".join(file.read().rpartition(b"\n")[:2])
        except OSError:
            return
        self._read += len(whole)
        yield from whole.split(b"\n")[:-1]


class Tail:
    """New objects of a JSONL file that another process appends to.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    kind : type of Part, optional
        What its lines are; events if absent.
    """

    def __init__(self, path: Path, kind: type[Part] | None = None) -> None:
        self._lines, self._kind = Lines(path), kind
        self.damaged = 0

    def new(self) -> list[Event]:
        """Return the objects of the lines finished since the last call.

        A whole line that is damaged is counted in `damaged`, and what is wrong left out: progress
        must not die of it.
        """
        fresh = [self._parse(line) for line in self._lines.new() if line.strip()]
        return [event for event in fresh if event is not None]

    def _parse(self, line: bytes) -> Event | None:
        value, _ = parsed(line)
        problems: list[str] = []
        right = None if value is None else salvage(self._kind, value, problems)
        self.damaged += value is None or bool(problems)
        return right


_PROGRESS = re.compile(r"INFO\s*:\s+((?:client \d+|server): .+)$")


class ClientLines:
    """The clients' lines on their progress, from the log that Flower and Ray write.

    Parameters
    ----------
    path, begin
        As for `Lines`.
    """

    def __init__(self, path: Path, begin: int = 0) -> None:
        self._lines = Lines(path, begin)
        self._seen: set[str] = set()

    def new(self) -> list[str]:
        """Return the clients' lines finished since the last call, each once and in order."""
        fresh = []
        for line in self._lines.new():
            match = _PROGRESS.search(plain_text(line.decode("utf-8", "replace").rstrip("\r")))
            if match and (text := one_line(match.group(1))) not in self._seen:
                self._seen.add(text)
                fresh.append(text)
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
    found = (_RAISED.match(line.strip()) for line in reversed(text.splitlines()))
    return next((match.group(1).strip() for match in found if match), "")
