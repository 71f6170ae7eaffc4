"""`llm-qfl audit`: replay a run's recorded decisions and say whether they come out the same.

The launcher does not import the apps: a process of its own rebuilds the agent. No model is asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import real_path
from llm_qfl.cli.children import USER_MISTAKE, ChildFailedError, call_module
from llm_qfl.cli.formatting import one_line, steps_words, who


def audit(run: Path) -> int:
    """Print a table of a run's decisions, replayed.

    Parameters
    ----------
    run : Path
        A run's results folder.

    Returns
    -------
    int
        0 if all come out the same, 1 if any differs or the replay failed, 2 if lines are damaged.

    Raises
    ------
    UserError
        If there is no such record, or nothing of it can be read.
    """
    folder = str(real_path(run))
    try:
        found: dict[str, Any] = json.loads(call_module("reporting.audit", [folder]))
    except ChildFailedError as error:
        print(f"llm-qfl: the decisions could not be replayed: {error}", file=sys.stderr)
        return 1
    print("\n".join(audit_lines(found)))
    for one in found["damaged"]:
        print(f"llm-qfl: {one_line(one)}", file=sys.stderr)
    if found["damaged"]:
        return USER_MISTAKE
    return 1 if any(line["differs"] for line in found["rounds"]) else 0


def audit_lines(found: Mapping[str, Any]) -> list[str]:
    """Write the findings as lines: a line a round, below it what differs."""
    rounds = found["rounds"]
    lines = [f"agent: {one_line(found['agent'])}", "", "round  clients  steps         replayed"]
    for one in rounds:
        if one["stop"]:
            told = f"{'stop':<22}"
        else:
            named = who(one["participants"], one["clients"])
            told = f"{named:<8} {steps_words(one['steps'], one['participants']):<13}"
        lines.append(f"{one['round']:>5}  {told} {'differs' if one['differs'] else 'same'}")
        lines += [f"       - {one_line(difference)}" for difference in one["differs"]]
    same = sum(not one["differs"] for one in rounds)
    return [*lines, "", f"{same} of {len(rounds)} decisions come out the same"]
