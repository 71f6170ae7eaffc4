"""Work that the launcher leaves to a process of its own, since it does not import the apps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from core import UserError, flatten
from llm_qfl.cli.formatting import LONGEST, clip, one_line
from llm_qfl.cli.plan import Plan
from llm_qfl.cli.shipped import PACKAGES

UNICODE = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
"""Environment of our processes: they write any character, whatever the user's terminal shows."""

USER_MISTAKE = 2
"""Exit code by which a child says that its last line is a user's mistake."""


def print_json(value: Any) -> None:
    """Print what a table would show as one JSON document."""
    print(json.dumps(value, indent=2))


class LaunchError(RuntimeError):
    """A process could not be started or ended badly; the message is one line for the user."""


def call_module(
    module: str,
    words: Sequence[str] = (),
    *,
    failed: str,
    text: str = "",
    seconds: float | None = None,
) -> str:
    """Run ``python -m module`` where our packages are, and return what it prints.

    Parameters
    ----------
    module : str
        One of our modules.
    words : sequence of str
        Its arguments.
    failed : str
        How the error begins should it fail.
    text : str
        Its standard input.
    seconds : float, optional
        Longest wait.

    Raises
    ------
    UserError
        If it exits with 2: its last line.
    LaunchError
        If it fails otherwise, or takes too long.
    """
    places = filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")])
    try:
        done = subprocess.run(
            # From the user's folder, for files of his own; -P: none of them stands in for ours.
            [sys.executable, "-P", "-m", module, *words],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **UNICODE, "PYTHONPATH": os.pathsep.join(places)},
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{failed}: {module} did not answer within {seconds:g} s") from None
    if not done.returncode:
        return done.stdout
    last = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
    if done.returncode == USER_MISTAKE:
        raise UserError(one_line(last[-1]))
    raise LaunchError(f"{failed}: {clip(one_line(last[-1]), LONGEST)}")


def ask(module: str, plan: Plan, *, failed: str, seconds: float | None = None) -> dict[str, Any]:
    """Let a module that answers with JSON (`core.settings_command`) work on a plan's settings."""
    settings = {**flatten(plan.settings), **plan.overrides}
    printed = call_module(module, failed=failed, text=json.dumps(settings), seconds=seconds)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])  # a library may print before it
    return found
