"""Reading a run's files while the run still writes them, and deciding how it ended."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from core import write_text
from core.flower_compat import NO_HEARTBEAT, SIMULATION_FAILED
from core.storage.reading import parsed, salvage
from core.storage.records import Part
from llm_qfl.cli.formatting import one_line, plain_text, shortened

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

    def new(self) -> list[Event]:
        """Return the objects of the lines finished since the last call.

        What is wrong in a damaged line is left out: progress must not die of it.
        """
        values = (parsed(line)[0] for line in self._lines.new() if line.strip())
        events = (salvage(self._kind, value, []) for value in values if value is not None)
        return [event for event in events if event is not None]


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


COMPLETED = 0
FAILED = 1
INTERRUPTED = 130


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run when it is over.

    Parameters
    ----------
    status, details : str
        Flower's last report, for instance ``finished:completed``; empty if there was none.
    summary, end : dict
        ``summary.json`` and the ``end`` event; empty where there is none.
    log_error : str
        Last exception in the run's log.
    superlink_died : bool
        Whether the SuperLink ended before the run did.
    superlink_tail : str
        Last line of its log.
    launch_error : str
        Why Flower could not be started or did not take the run.
    interrupted : bool
        Whether the user stopped the run.
    """

    status: str = ""
    details: str = ""
    summary: Event = field(default_factory=dict)
    end: Event = field(default_factory=dict)
    log_error: str = ""
    superlink_died: bool = False
    superlink_tail: str = ""
    launch_error: str = ""
    interrupted: bool = False


class Outcome(NamedTuple):
    """Exit code, and one line saying why (empty when the run completed)."""

    code: int
    line: str


def outcome_of(evidence: Evidence) -> Outcome:
    """Decide the exit code: 0 only if Flower and the run's own summary both say completed."""
    if evidence.interrupted:
        return Outcome(INTERRUPTED, "interrupted before the run was over")
    completed = evidence.status == "finished:completed"
    if evidence.launch_error:
        failure = evidence.launch_error
    elif completed and evidence.summary.get("status") == "completed":
        return Outcome(COMPLETED, "")
    elif evidence.superlink_died:
        tail = f"; its last line: {evidence.superlink_tail}" if evidence.superlink_tail else ""
        failure = f"Flower's SuperLink ended while the run went on{tail}"
    elif evidence.status == "finished:stopped":
        reason = _reason(evidence)
        failure = f"the run was stopped from outside{reason and ': ' + reason}"
    elif completed and not evidence.summary.get("status"):
        reason = _reason(evidence) or "see the log"
        failure = f"Flower ended, but no summary was written: {reason}"
    else:
        failure = f"the run failed: {_reason(evidence) or 'Flower gives no reason'}"
    return Outcome(FAILED, shortened(one_line(failure)))


def _reason(evidence: Evidence) -> str:
    """Return the first cause that anybody gave, the run's own words before Flower's."""
    details = evidence.details.strip()
    candidates = (
        str(evidence.summary.get("error") or ""),
        str(evidence.end.get("error") or ""),
        evidence.log_error,
        "" if details == "N/A" else details.removeprefix(SIMULATION_FAILED),
    )
    reason = next((line for text in candidates if (line := one_line(text))), "")
    if NO_HEARTBEAT.lower() in reason.lower():
        return f"its server process was killed, hangs, or lost its SuperLink ({reason})"
    return reason
