"""`llm-qfl report`: make a run's report again, in a process of its own.

The launcher does not import the apps, and the report draws with matplotlib.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cli.plan import find_app
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
    folder = run.expanduser().resolve()
    if not any((folder / name).is_file() for name in ("config.json", "metrics.jsonl")):
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
        print(f"llm-qfl: the report was not made: {last[-1]}", file=sys.stderr)
        return 1
    print(folder / "report.html")
    return 0
