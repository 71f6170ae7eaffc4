"""`llm-qfl study`: run a study's file, in a process of its own.

The launcher does not import the apps. Ctrl-C ends the study and its workers; what is complete
stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_qfl.cli.children import UNICODE
from llm_qfl.cli.processes import Interrupted, die_with_parent
from llm_qfl.cli.shipped import PACKAGES

GRACE = 30.0
"""Seconds in which an interrupted study writes its tables."""


def study(
    file: Path,
    assignments: Sequence[str],
    seeds: Sequence[int] | None,
    jobs: int | None,
    folder: Path | None,
    trials: int | None,
    only: Sequence[str],
    *,
    as_json: bool,
) -> int:
    """Run a study's file, and print what it has come to.

    Parameters
    ----------
    file : Path
        The study.
    assignments : sequence of str
        ``key=value`` of settings of all cells.
    seeds, jobs, folder, trials
        In the place of the file's; None: the file's.
    only : sequence of str
        ``axis=value``: leave out the others, but for the reference.
    as_json : bool
        Print JSON, and show no progress.

    Returns
    -------
    int
        0, or 1 where runs have failed, 2 for a mistake.
    """
    requested = {
        "file": str(file),
        "assignments": list(assignments),
        "seeds": seeds,
        "jobs": jobs,
        "folder": None if folder is None else str(folder),
        "trials": trials,
        "only": list(only),
        "quiet": as_json or None,
        "as_json": as_json,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "llm_qfl.studies.command"],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, **UNICODE, "PYTHONPATH": _packages()},
        start_new_session=True,  # a signal reaches it once: from us
        preexec_fn=die_with_parent(),
    )
    try:
        process.communicate(json.dumps(requested))
    except Interrupted:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    return process.returncode


def _packages() -> str:
    """Return where a process of ours finds our packages, and then what this one would."""
    return os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
