"""Jobs that were submitted and not collected: `python -m quantum.engines.devices.pending`.

Lists them as JSON lines, or cancels them; `llm-qfl jobs` prints it, and a run that is stopped
cancels its own this way.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from core import HardwareSettings, UserError, store_root
from quantum.engines.devices.base import Budget
from quantum.engines.devices.job_store import JobStore, RecordedJob
from quantum.engines.devices.jobs import JobRunner

LOCAL = ("fake_", "aer")
"""How the names of backends begin whose jobs end with their process."""


def pending(store: Path, run: str = "") -> list[RecordedJob]:
    """Return the open jobs of a store.

    Parameters
    ----------
    store : Path
        A site's store.
    run : str
        Flower's id of a run; empty: of all runs.

    Raises
    ------
    BackendError
        If the job store cannot be read.
    """
    path = store / "jobs.sqlite"
    if not path.is_file():
        return []
    found = JobStore(path).open_jobs()
    return [job for job in found if not run or job.run.partition("/")[0] == run]


def cancel(store: Path, run: str = "", account: str = "") -> int:
    """Cancel the open jobs of a store; one that is done already stays, to be collected.

    Parameters
    ----------
    store : Path
        A site's store.
    run : str
        Flower's id of a run; empty: of all runs.
    account : str
        Name of a saved IBM account; empty: the default one.

    Returns
    -------
    int
        How many jobs were cancelled.

    Raises
    ------
    BackendError
        If the service cannot be reached, or the job store cannot be used.
    """
    found = pending(store, run)
    if not found:
        return 0
    jobs = JobStore(store / "jobs.sqlite")
    local = [job for job in found if job.backend.startswith(LOCAL)]
    for job in local:
        jobs.record_end(job.key, "cancelled", "its process has ended")
    runs = sorted({job.run for job in found if job not in local})
    if not runs:
        return len(local)
    from quantum.engines.devices.backends import connect
    from quantum.engines.devices.ibm import IbmService

    hardware = HardwareSettings()
    backend = SimpleNamespace(name="IBM Quantum")
    service = IbmService(backend, hardware, 0, connect(account))
    # The timeout is of waiting for values; cancelling has a bound of its own.
    runner = JobRunner(service, jobs, Budget(), hardware.retries, 0.0, np.random.default_rng(0))
    return len(local) + sum(runner.cancel_open(each) for each in runs)


def main(arguments: list[str]) -> int:
    """List or cancel; a user's mistake is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="quantum.engines.devices.pending", description=__doc__)
    parser.add_argument("--store", type=Path, default=store_root())
    parser.add_argument("--run", default="")
    parser.add_argument("--account", default="")
    parser.add_argument("--cancel", action="store_true")
    given = parser.parse_args(arguments)
    try:
        if given.cancel:
            print(cancel(given.store, given.run, given.account))
            return 0
        for job in pending(given.store, given.run):
            keys = ("run", "label", "backend", "job_id", "status", "circuits", "shots", "created")
            print(json.dumps({key: getattr(job, key) for key in keys}))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
