"""A site's own account of epsilon: what its rows have spent over all runs, whoever asked for it.

One file of JSON lines for a site's rows, in its store: appended to under a lock, and on the disk
before what it counts leaves the site. The file is the site's alone, and nothing of it is sent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.accounting import epsilon
from core.errors import BudgetError, UserError
from core.storage.files import append_jsonl, file_lock, json_object, read_file

FOLDER = "privacy"
"""Folder of a site's store that holds its accounts; `llm-qfl clean` leaves it alone."""


@dataclass(frozen=True)
class Release:
    """Noised numbers about a site's rows, as the account has them.

    Attributes
    ----------
    what : str
        ``moments`` or ``updates``.
    multiplier : float
        Deviation of the normal noise over what one row can change.
    count : int
        How often, for instance in how many steps.
    """

    what: str
    multiplier: float
    count: int


def rows_key(texts: Iterable[str], labels: Iterable[int]) -> str:
    """Return 32 hexadecimal digits that stand for a site's rows, in whatever order or split."""
    rows = (f"{int(label)}:{text}".encode() for text, label in zip(texts, labels, strict=True))
    digests = sorted(hashlib.sha256(row).digest() for row in rows)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


def account_file(store: Path, client: int, rows: str) -> Path:
    """Return the file of a site's account; sites of one process share a store."""
    return store / FOLDER / f"{client}-{rows}.jsonl"


def spent(releases: Iterable[Release], delta: float) -> float:
    """Return epsilon of one row over all releases, by Renyi differential privacy."""
    counts: dict[float, int] = {}
    for one in releases:
        counts[one.multiplier] = counts.get(one.multiplier, 0) + one.count
    return epsilon(counts, delta)


def recorded(path: Path) -> list[Release]:
    """Return what an account holds; nothing where there is none.

    Raises
    ------
    UserError
        If a line of it is damaged: what was spent would be unknown.
    """
    return [_release(path, line) for line in _whole_lines(path)]


def runs_of(path: Path) -> list[str]:
    """Return the runs that an account names, each once, in the order of their first release."""
    lines = (json_object(line) or {} for line in _whole_lines(path))
    return list(dict.fromkeys(str(line.get("run")) for line in lines))


def summed_up(path: Path, delta: float = 1e-5) -> str:
    """Say in a line what an account holds, or why it cannot be read."""
    try:
        releases = recorded(path)
    except UserError as error:
        return str(error)
    runs = len(runs_of(path))
    return f"epsilon {spent(releases, delta):.3g} at delta {delta:g}, in {runs} runs"


def charge(
    path: Path, run: str, releases: Sequence[Release], *, limit: float, delta: float
) -> float:
    """Write releases into an account before they leave; return epsilon with them.

    Parameters
    ----------
    path : Path
        `account_file`.
    run : str
        The run that they are for.
    releases : sequence of Release
        What is to leave.
    limit : float
        Most epsilon; 0: none.
    delta : float
        Delta at which it is counted.

    Raises
    ------
    BudgetError
        If they would pass the limit: nothing is written, and nothing may leave.
    UserError
        If the account is damaged or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lock(path.with_suffix(".lock")):
            after = spent([*recorded(path), *releases], delta)
            if limit and after > limit:
                raise over(after, limit)
            _append(path, run, releases, delta)
    except OSError as error:
        raise UserError(
            f"the account of privacy in {path.parent} cannot be written ({error.strerror})",
            "a folder that may be written, with space left",
            "set llm.store to one",
        ) from error
    return after


def over(after: float, limit: float) -> BudgetError:
    """Build the error of what would pass a site's limit."""
    return BudgetError(
        f"epsilon {after:.3g} over all runs on this site's rows",
        f"at most privacy.site_epsilon = {limit:g}",
        "no more of these rows may be told; raise the site's limit only if that is meant",
    )


def _append(path: Path, run: str, releases: Sequence[Release], delta: float) -> None:
    if path.exists() and not read_file(path).endswith(b"\n"):
        # A line that a power cut has broken off: what it was to count has not left.
        os.truncate(path, len(read_file(path).rpartition(b"\n")[0]) + 1)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    for one in releases:
        facts: Mapping[str, object] = {"mechanism": "gaussian", **asdict(one), "delta": delta}
        append_jsonl(path, {"run": run, "date": date, **facts})
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[bytes]:
    return read_file(path).split(b"\n")[:-1] if path.exists() else []


def _release(path: Path, line: bytes) -> Release:
    found = json_object(line) or {}
    multiplier, count = found.get("multiplier"), found.get("count")
    if isinstance(multiplier, float) and multiplier > 0 and isinstance(count, int) and count > 0:
        return Release(str(found.get("what")), multiplier, count)
    raise UserError(
        f"{str(path)!r} has a damaged line",
        "an account as it was written",
        "restore it; without it what these rows have spent is unknown",
    )
