"""A file of lines in which each names the digest of the one before: what is changed is seen.

A line is a JSON object whose ``before`` is the sha256 of the bytes of the line above, without its
end; of the first line `START`. Lines are appended and never cut, so whoever noted the digest of a
line once can tell later whether it, or any line above it, is another one. The last line's digest
is the chain's head. A chain says nothing of a writer who makes all of it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.storage.files import plain, read_file
from core.storage.reading import parsed

START = "0" * 64
"""What the first line names."""


def sha256(data: bytes) -> str:
    """Return the digest of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Chain:
    """Appends lines to a chain; a chain that is there goes on.

    Parameters
    ----------
    path : Path
        The file; made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = ""

    @property
    def head(self) -> str:
        """The digest of the last line."""
        if not self._head:
            try:
                *_, last = read_file(self.path).removesuffix(b"\n").split(b"\n")
            except FileNotFoundError:
                return START
            self._head = sha256(last)
        return self._head

    def append(self, *values: Mapping[str, Any]) -> None:
        """Append lines, all of them or none; a process that is killed now does not lose them.

        Where a process was killed in the middle of a line, that part is left as it is.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        head, lines = self.head, []
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        for value in values:
            whole = plain({"before": head, "at": at, **value})
            lines.append(json.dumps(whole, allow_nan=False).encode())
            head = sha256(lines[-1])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(length - 1, 0))
            torn = length and file.read(1) != b"\n"
            try:
                left = memoryview((b"\n" if torn else b"") + b"".join(x + b"\n" for x in lines))
                while left:
                    left = left[file.write(left) :]
            except BaseException:
                file.truncate(length)
                raise
        self._head = head

    def sync(self) -> None:
        """Put what was appended on the disk, so that it survives a power cut."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())


@dataclass(frozen=True)
class ChainLines:
    """A chain that was read.

    Attributes
    ----------
    lines : list of dict
        The whole lines as far as the chain holds; each with its ``line`` number and ``digest``.
    broken : str
        Where and how the chain breaks first; empty: it holds.
    torn : list of int
        Numbers of lines that a killed process left half written, and the chain goes on from.
    head : str
        The digest of the last line that holds.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    broken: str = ""
    torn: list[int] = field(default_factory=list)
    head: str = START


def read_chain(path: Path) -> ChainLines:
    """Read a chain and check it, up to the first line that does not follow from those above.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    texts = read_file(path).split(b"\n")
    whole = not texts[-1]
    texts = texts[:-1] if whole else texts
    lines: list[dict[str, Any]] = []
    torn: list[int] = []
    head = START
    for number, text in enumerate(texts, 1):
        value, why = parsed(text)
        last = number == len(texts)
        if value is None:
            if not whole if last else _follows(texts[number], text):
                torn.append(number)
                head = sha256(text)
                continue
            return ChainLines(lines, f"line {number} is {why}", torn, head)
        if value.get("before") != head:
            why = f"line {number} does not follow from line {number - 1}"
            if not lines:
                why = f"line {number} does not begin a log"
            reason = "a line was changed, inserted, moved or cut out there or just above"
            return ChainLines(lines, f"{why}: {reason}", torn, head)
        head = sha256(text)
        lines.append({**value, "line": number, "digest": head})
    return ChainLines(lines, "", torn, head)


def _follows(text: bytes, above: bytes) -> bool:
    """Whether a line takes up the chain again after one that is half written."""
    value, _ = parsed(text)
    return value is not None and value.get("before") == sha256(above)
