"""`llm-qfl jobs`: jobs that were submitted to a device and not collected.

The launcher does not import the apps' parts: a process of its own reads the book of jobs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from core import store_root, whole
from llm_qfl.cli.children import ChildFailedError, call_module


def ask_book(
    store: Path, *, run: str = "", account: str = "", cancel: bool = False, seconds: float = 120.0
) -> list[str]:
    """Let the book's own process list or cancel open jobs; return its lines.

    Raises
    ------
    UserError
        If the book or the service cannot be used, in one line.
    ChildFailedError
        If that process fails.
    """
    words = ["--store", str(store), "--run", run, "--account", account, *["--cancel"] * cancel]
    return call_module("quantum.engines.devices.pending", words, seconds=seconds).splitlines()


def jobs(*, cancel: bool, run: str, account: str, store: str) -> int:
    """List the open jobs, or cancel them.

    Parameters
    ----------
    cancel : bool
        Whether to cancel, not only list.
    run : str
        Flower's id of a run; empty: of all runs.
    account : str
        Name of a saved IBM account; empty: the default one.
    store : str
        The site's store (`llm.store`); empty: the usual one.

    Returns
    -------
    int
        0, or 1 if the book's process failed.

    Raises
    ------
    UserError
        If the book or the service cannot be used.
    """
    place = store_root(store)
    try:
        return _jobs(place, cancel=cancel, run=run, account=account)
    except ChildFailedError as error:
        print(f"llm-qfl: the book of jobs could not be used: {error}", file=sys.stderr)
        return 1


def _jobs(place: Path, *, cancel: bool, run: str, account: str) -> int:
    found = [json.loads(line) for line in ask_book(place, run=run)]
    for job in found:
        print(
            f"{job['backend']}  {job['job_id'] or 'id unknown'}  {job['status']}  "
            f"{whole(job['circuits'])} circuits  {job['created']}  run {job['run']}: {job['label']}"
        )
    if not found:
        print(f"no open jobs in {place}")
    elif cancel:
        (count,) = ask_book(place, run=run, account=account, cancel=True)
        print(f"{count} of {len(found)} cancelled; what was done already is kept to be collected")
    return 0


def cancel_run(store: str, run: str, account: str) -> str:
    """Cancel what a stopped run left open, and say so in a line; empty if there was nothing."""
    place = store_root(store)
    if not run or not (place / "jobs.sqlite").is_file() or not ask_book(place, run=run):
        return ""
    (count,) = ask_book(place, run=run, account=account, cancel=True)
    return f"{count} open jobs cancelled" if count != "0" else ""
