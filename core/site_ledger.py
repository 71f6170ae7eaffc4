"""A site's own account of epsilon: what its rows have spent over all runs, whoever began them.

One file of JSON lines for a site's rows, in its store: appended to under a lock, and on the disk
before what it counts leaves the site. Beside it the digests of these rows: what a row has spent is
the sum over all accounts that have it, whoever's and of however many other rows they are. The files
are the site's alone, and nothing of them is sent.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.accounting import epsilon
from core.errors import BudgetError, UserError
from core.storage.files import (
    append_jsonl,
    file_lock,
    json_object,
    read_file,
    sync_folder,
    write_bytes,
)

HIGHEST_DELTA = 1e-5
"""A site counts at a run's delta, at most this one: the run's own would buy a lower epsilon."""

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


def row_digests(texts: Iterable[str]) -> frozenset[str]:
    """Return 16 hexadecimal digits for each row, whatever its label."""
    return frozenset(hashlib.sha256(str(text).encode()).hexdigest()[:16] for text in texts)


def rows_key(rows: Iterable[str]) -> str:
    """Return 32 hexadecimal digits that stand for `row_digests`, in whatever order."""
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()[:32]


def account_file(store: Path, client: int, rows: str) -> Path:
    """Return the file of a site's account; sites of one process share a store."""
    return store / FOLDER / f"{client}-{rows}.jsonl"


def spent(releases: Iterable[Release], delta: float) -> float:
    """Return epsilon of one row over all releases, by Renyi differential privacy."""
    return epsilon(_counts(releases), delta)


def _counts(releases: Iterable[Release]) -> Counter[float]:
    """Return how many releases there are of each multiplier."""
    counts: Counter[float] = Counter()
    for one in releases:
        counts[one.multiplier] += one.count
    return counts


def spent_by_rows(
    path: Path, rows: Iterable[str], releases: Sequence[Release], delta: float
) -> float:
    """Return the most that one of some rows has spent, in all accounts, and with further releases.

    Parameters
    ----------
    path : Path
        `account_file` of these rows; the accounts beside it count for the rows that they have.
    rows : iterable of str
        `row_digests`.
    releases : sequence of Release
        What is to be told of each of the rows.
    delta : float
        As a run has it; `HIGHEST_DELTA` if that is less.

    Raises
    ------
    UserError
        If an account that counts is damaged.
    """
    others = {
        one.with_suffix(".jsonl"): set(read_file(one).decode().split())
        for one in path.parent.glob("*.rows")
        if one.stem != path.stem
    }
    sharing = {frozenset(p for p, held in others.items() if row in held) for row in rows}
    own, delta = [*recorded(path), *releases], min(delta, HIGHEST_DELTA)
    read = {p: recorded(p) for p in frozenset().union(*sharing)}
    totals = {
        frozenset(_counts([*own, *(r for p in with_row for r in read[p])]).items())
        for with_row in (sharing or {frozenset()})
    }
    return max(epsilon(dict(total), delta) for total in totals)


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
    what = "1 run" if runs == 1 else f"{runs} runs"
    return f"epsilon {spent(releases, delta):.3g} at delta {delta:g}, in {what}"


def charge(
    path: Path,
    run: str,
    releases: Sequence[Release],
    *,
    limit: float,
    delta: float,
    rows: frozenset[str] = frozenset(),
) -> None:
    """Write releases into an account before they leave.

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
        Delta at which it is counted, at most `HIGHEST_DELTA`.
    rows : frozenset of str
        `row_digests` of the account's rows: other accounts that have some of them count too.

    Raises
    ------
    BudgetError
        If they would pass the limit: nothing is written, and nothing may leave.
    UserError
        If the account is damaged or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lock(path.parent / "accounts.lock"):
            recorded(path)  # a damaged one is not gone on with
            if limit and (after := spent_by_rows(path, rows, releases, delta)) > limit:
                raise over(after, limit)
            if rows and not path.with_suffix(".rows").exists():
                write_bytes(path.with_suffix(".rows"), "\n".join(sorted(rows)).encode(), mode=0o600)
            _append(path, run, releases, delta)
    except OSError as error:
        raise UserError(
            f"the account of privacy in {path.parent} cannot be written ({error.strerror})",
            "a folder that may be written, with space left",
            "set llm.store to one",
        ) from error


def over(after: float, limit: float) -> BudgetError:
    """Build the error of what would pass a site's limit."""
    return BudgetError(
        f"epsilon {after:.3g} over all runs on this site's rows",
        f"at most privacy.site_epsilon = {limit:g}",
        "nothing more of these rows may leave it; raise the site's limit only if that is meant",
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
    sync_folder(path.parent)


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
