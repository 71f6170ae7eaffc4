"""What `llm-qfl study` starts: reads what the command line says as JSON from its stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from core import UserError
from core.settings.parsing import parse_assignment
from llm_qfl.studies.file import read_study_file
from llm_qfl.studies.lines import study_json, study_lines
from llm_qfl.studies.study import study

FAILED, USER_MISTAKE, INTERRUPTED = 1, 2, 130


def run_study(requested: dict[str, Any]) -> int:
    """Run the study of a file, and print what it has come to.

    Returns
    -------
    int
        Exit code: 0, or 1 where runs have failed.
    """
    file = Path(requested["file"])
    given: dict[str, Any] = {
        key: requested[key] for key in ("seeds", "jobs", "folder") if requested[key] is not None
    }
    given |= dict(parse_assignment(text, "--set") for text in requested["assignments"])
    if requested["trials"] is not None:
        search = read_study_file(file).get("search") or {}
        given["search"] = {**search, "trials": requested["trials"]}
    only = [tuple(pair.partition("=")[::2]) for pair in requested["only"]]
    found = study(file, only=only, quiet=requested["quiet"], **given)
    print(json.dumps(study_json(found), indent=2) if requested["as_json"] else study_lines(found))
    return FAILED if (found.table["status"] != "completed").any() else 0


def main() -> int:
    """Answer `llm-qfl study`; the last line of stderr is a user's mistake."""
    try:
        return run_study(json.load(sys.stdin))
    except UserError as problem:
        print(f"llm-qfl: {' '.join(str(problem).split())}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("llm-qfl: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
