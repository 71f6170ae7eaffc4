"""Checkpoints of a run on disk: whole or absent, and the record cut back to one of them.

``checkpoint/round-NNN`` is all that a run needs to go on after that round; round 0 is the
preparation. ``manifest.json`` in it lists the other files' sha256: one that does not match its
list counts as damaged, and the one before it is taken. ``checkpoint/underway.json`` holds what a
round has cost that is not closed yet, and ``checkpoint/repeated.json`` what such rounds cost when
they were started again: paid, without a result. ``checkpoint/releases.json`` counts the
rounds whose messages went out, broken off ones too: it is written before they do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError, explain
from core.storage.content_store import ContentStore
from core.storage.files import (
    by_number,
    file_lock,
    read_json,
    write_bytes,
    write_json,
)
from core.storage.reading import Reader, first_fault
from core.storage.records import Entries, LedgerFile, Part, Saved

FORMAT = 1
"""Of a checkpoint; another one is refused."""

STATE = "state.json"
UNDERWAY, REPEATED, RELEASES = "underway.json", "repeated.json", "releases.json"
MOST_KEPT = 5
"""Newest checkpoints that are kept: each holds the whole run, so all would take rounds squared."""

RECORDS = ("metrics.jsonl", "agent.jsonl")
"""What a run appends to; a checkpoint knows how long each was."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, read.

    Attributes
    ----------
    number : int
        The last round that it holds; 0: the preparation.
    folder : Path
        Where its arrays lie.
    state : dict
        ``state.json``.
    damaged : tuple of str
        Names of later ones that cannot be used.
    """

    number: int
    folder: Path
    state: dict[str, Any]
    damaged: tuple[str, ...] = ()


def write_checkpoint(
    run: Path, number: int, state: Mapping[str, Any], save: Callable[[Path], object]
) -> Path:
    """Write ``checkpoint/round-NNN`` in one move.

    Parameters
    ----------
    run, number : Path and int
        The results folder, and the last finished round.
    state : mapping
        JSON values; the records' lengths are added.
    save : callable
        Writes the arrays into the folder that it is given.

    Raises
    ------
    OSError
        If the folder cannot be written; what was there is then still there.
    """

    def save_all(folder: Path) -> None:
        save(folder)
        lengths = {name: _recorded_length(run / name) for name in RECORDS}
        write_json(folder / STATE, {"format": FORMAT, **state, "records": lengths}, compact=True)

    target = _store(run).write(f"round-{number:03d}", save_all)
    (target.parent / UNDERWAY).unlink(missing_ok=True)  # the round is closed
    folders = checkpoint_folders(run)
    # Later ones, which a run that went on from an earlier one cannot use, push none out.
    for old in folders[: folders.index(target) + 1][:-MOST_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoint_folders(run: Path) -> list[Path]:
    """Return a run's checkpoints in the order of their rounds, whole or not."""
    found = (run / "checkpoint").glob("round-*")
    return sorted((path for path in found if path.name[6:].isdecimal()), key=by_number)


def last_checkpoint(run: Path) -> Checkpoint | None:
    """Return the last whole checkpoint of a run, or None if there is none.

    Raises
    ------
    UserError
        If it was written by another version of the format.
    """
    damaged: list[str] = []
    for folder in reversed(checkpoint_folders(run)):
        state = _store(run).read(folder.name, lambda found: read_json(found / STATE))
        if state is None or not _long_enough(run, state):
            damaged.append(folder.name)
            continue
        if state.get("format") != FORMAT:
            raise UserError(
                f"{str(folder)!r} has format {state.get('format')!r}",
                f"format {FORMAT}",
                "resume with the version of llm-qfl that wrote it",
            )
        return Checkpoint(int(folder.name[6:]), folder, state, tuple(damaged))
    return None


def no_checkpoint(run: Path) -> str:
    """Return the message that a run has no checkpoint to resume from."""
    return explain(
        f"no whole checkpoint in {str(run)!r}",
        "a run whose sites had been prepared",
        "start it again",
    )


def _store(run: Path) -> ContentStore:
    return ContentStore(run / "checkpoint", private=False)


def _long_enough(run: Path, state: Mapping[str, Any]) -> bool:
    """Whether the records still hold what was in them."""
    try:
        lengths = [(run / name, state["records"][name]) for name in RECORDS]
        if any(type(length) is not int or length < 0 for _, length in lengths):
            return False
        return all(path.stat().st_size >= length for path, length in lengths if length)
    except (OSError, KeyError, TypeError):
        return False


def check_state(found: Checkpoint, *more: tuple[str, Any]) -> None:
    """Refuse a checkpoint whose state is not what a run writes, before anything is cut back to it.

    Parameters
    ----------
    *more : tuple of str and type
        Keys of the state, and what else they must be.

    Raises
    ------
    UserError
        With the file and the place in it.
    """
    from pydantic import TypeAdapter, ValidationError

    where = ""
    try:
        Saved.model_validate(found.state)
        for key, kind in more:
            where = f"{key}."
            # As JSON: strict dataclasses take no mapping of Python's.
            TypeAdapter(kind).validate_json(json.dumps(found.state[key]))
    except ValidationError as error:
        place = f"{str(found.folder / STATE)!r} is damaged ({where}{first_fault(error)})"
        fix = "remove that checkpoint, to go on from the one before"
        raise UserError(place, "the state of a run", fix) from None


def rewind(run: Path, checkpoint: Checkpoint) -> None:
    """Cut the records back to a checkpoint, and drop what it does not know of.

    Each file is replaced as a whole, so a crash on the way leaves it long or short, never torn;
    doing it twice is doing it once.
    """
    for name in RECORDS:
        path, length = run / name, int(checkpoint.state["records"][name])
        if path.exists() and path.stat().st_size > length:
            write_bytes(path, path.read_bytes()[:length])
    (run / "summary.json").unlink(missing_ok=True)
    (run / "report.html").unlink(missing_ok=True)


# --- what leaves the sites ------------------------------------------------------------------


def note_releases(run: Path, count: int) -> None:
    """Write down how many rounds' messages have gone out, this one included, before it goes."""
    write_json(run / "checkpoint" / RELEASES, {"releases": count})


def count_releases(run: Path, recorded: int) -> int:
    """Return how many rounds' messages have gone out, broken off ones too.

    Parameters
    ----------
    run : Path
        The results folder.
    recorded : int
        What the checkpoint knows of.

    Raises
    ------
    UserError
        If the count is damaged or missing: the privacy that was spent would be unknown.
    """
    path = run / "checkpoint" / RELEASES
    count = read_json(path).get("releases")
    if type(count) is not int or count < recorded:
        raise UserError(
            f"{str(path)!r} is damaged or missing",
            f"the number of rounds whose messages went out, {recorded} or more",
            "restore it; without it the spent privacy budget is unknown",
        )
    return count


# --- what an unfinished round has cost ------------------------------------------------------


def note_underway(run: Path, number: int, costs: Mapping[int, Mapping[str, Any]]) -> None:
    """Write down what a round has cost by client, before it is closed."""
    entries = [
        {"round": number, "client": client, **cost} for client, cost in sorted(costs.items())
    ]
    write_json(run / "checkpoint" / UNDERWAY, {"entries": entries}, compact=True)


def settle_repeated(
    run: Path, number: int, more: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return everything that was paid for rounds that are done again, and for going on.

    What the record holds of rounds beyond `number` is added to ``repeated.json`` first, once.

    Parameters
    ----------
    run : Path
        The results folder.
    number : int
        The round of the checkpoint that the run goes on from.
    more : iterable of mapping
        Entries of what going on itself has cost.

    Returns
    -------
    list of dict
        Entries as ``ledger.json`` has them: ``round``, ``client`` and costs.

    Raises
    ------
    UserError
        If a file that holds some is damaged.
    """
    home = run / "checkpoint"
    repeated = _whole(home / REPEATED, Entries)
    entries: list[dict[str, Any]] = repeated.get("entries", [])
    settled = repeated.get("settled", [])
    closed, underway = (
        [entry for entry in _whole(path, kind).get("entries", []) if entry["round"] > number]
        for path, kind in ((run / "ledger.json", LedgerFile), (home / UNDERWAY, Entries))
    )
    rounds = {entry["round"] for entry in closed}
    open_ = [entry for entry in underway if entry["round"] not in rounds]
    for batch in (closed, open_):
        digest = hashlib.sha256(json.dumps(batch, sort_keys=True).encode()).hexdigest()
        if batch and digest not in settled:
            entries += batch
            settled.append(digest)
    entries += map(dict, more)
    if entries:
        write_json(home / REPEATED, {"entries": entries, "settled": settled})
    (home / UNDERWAY).unlink(missing_ok=True)
    return entries


def _whole(path: Path, kind: type[Part]) -> dict[str, Any]:
    """Return a file's record; empty if there is none, refused if it is damaged."""
    reader = Reader(path.parent)
    found = reader.file(path.name, kind)
    if reader.damaged:
        why = f"{str(path)!r} is damaged ({reader.damaged[0]})"
        fix = "give it back, or remove it: what it holds is then in no total and no budget"
        raise UserError(why, "what rounds have cost", fix)
    return found


# --- one at a time ----------------------------------------------------------------------------


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run's folder: two that write to it would mix their lines.

    Raises
    ------
    UserError
        If another process holds it.
    """
    home = run / "checkpoint"
    home.mkdir(parents=True, exist_ok=True)
    fix = (
        "wait for its end: a run on a deployment goes on without its launcher, metrics.jsonl has "
        "its rounds and summary.json its end; what is left of a simulation ends with "
        "llm-qfl clean --yes"
    )
    given = f"the run in {str(run)!r} is still going on"
    with file_lock(home / ".lock", explain(given, "a run that has ended", fix)):
        yield


def _recorded_length(path: Path) -> int:
    """Return a record's length, once that much of it is on the disk."""
    try:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return 0
