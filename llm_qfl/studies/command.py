"""What `llm-qfl study` starts: reads what the command line says as JSON from its stdin."""

from __future__ import annotations

import json
import sys
from inspect import signature
from pathlib import Path
from typing import Any

from core import SettingsError, UserError
from core.settings.parsing import parse_assignment
from llm_qfl.configuration import configure, flat_values
from llm_qfl.studies.file import read_study_file
from llm_qfl.studies.lines import study_json, study_lines
from llm_qfl.studies.study import study

FAILED, USER_MISTAKE, INTERRUPTED = 1, 2, 130
GIVEN = ("seeds", "jobs", "folder")
"""Keys of a study's file that are options too."""


def run_study(requested: dict[str, Any]) -> int:
    """Run the study of a file, and print what it has come to.

    Returns
    -------
    int
        Exit code: 0, or 1 where runs have failed.
    """
    given = read_study_file(Path(requested["file"]))
    assignments = [parse_assignment(text, "--set") for text in requested["assignments"]]
    own = {**flat_values(given.pop("set", {})), **flat_values(dict(assignments))}
    for key in own.keys() & signature(study).parameters.keys():  # an argument is no setting
        configure(None, {key: own[key]})  # says so
    given |= {key: requested[key] for key in GIVEN if requested[key] is not None}
    if requested["trials"] is not None:
        if "search" not in given:
            shown = f"--search with {requested['file']!r}, which has no [search]"
            raise SettingsError(shown, "a file with one", "leave --search out")
        given["search"] = {**given["search"], "trials": requested["trials"]}
    only = tuple(pair.partition("=")[::2] for pair in requested["only"])
    found = study(only=only, quiet=requested["quiet"], **given, **own)
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
