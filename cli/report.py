"""`llm-qfl report`: make a run's report again, in a process of its own.

The launcher does not import the apps, and the report draws with matplotlib.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cli.outcome import LONGEST
from cli.plan import find_app
from cli.words import clip, one_line
from federation import UserError, explain


def remake_report(run: Path) -> int:
    """Make ``report.html`` in a results folder and say where it is.

    Parameters
    ----------
    run : Path
        A run's results folder.

    Returns
    -------
    int
        0, or 1 if the report could not be made.

    Raises
    ------
    UserError
        If the folder holds no run.
    """
    folder = Path(os.path.realpath(os.path.expanduser(run)))  # Path's own raise for "~who-is-it"
    if not any(os.path.isfile(folder / name) for name in ("config.json", "metrics.jsonl")):
        raise UserError(
            explain(
                f"no run in {str(run)!r}",
                "a results folder, for instance runs/latest",
                "name one that holds config.json or metrics.jsonl",
            )
        )
    command = [sys.executable, "-m", "server_app.report", str(folder)]
    done = subprocess.run(command, cwd=find_app(), capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        said = clip(one_line(last[-1]), LONGEST)
        print(f"llm-qfl: the report was not made: {said}", file=sys.stderr)
        return 1
    print(folder / "report.html")
    return 0
