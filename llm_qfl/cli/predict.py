"""`llm-qfl predict`: a trained model's predictions of a file's rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from core.formatting import display_safe

UNREAD = 3
"""Exit code where some rows could not be read; the others have their predictions."""

MOST_LINES = 1000
"""Unread rows that get a line of their own; more are counted."""


def predict(
    run: Path,
    source: str,
    output: str,
    text_column: str,
    form: str,
    assignments: Sequence[str],
    *,
    as_json: bool,
) -> int:
    """Predict the rows of a file with a trained model.

    Parameters
    ----------
    run : Path
        A run's results folder, or a folder of `Model.save`.
    source, output : str
        Files, or ``-`` for the standard input and output.
    text_column, form : str
        The column to read, and the input's format; empty: found.
    assignments : sequence of str
        Settings of where it computes, ``key=value``.
    as_json : bool
        Print JSON lines.

    Returns
    -------
    int
        0 if every row has a prediction, else `UNREAD`.

    Raises
    ------
    UserError
        If the model, the file or a setting cannot be used.
    """
    from llm_qfl.model import load
    from llm_qfl.model.prediction import check_output, predict_file, write_output

    written = check_output(output, source, as_json=as_json)
    model = load(run, assignments)
    found = predict_file(model, source, form, text_column)
    write_output(found.table, output, written)
    for note in (*model.notes, *found.notes):
        _say(note)
    for number, problem in list(found.problems.items())[:MOST_LINES]:
        _say(f"row {number}: {problem}; no prediction")
    if len(found.problems) > MOST_LINES:
        _say(f"{len(found.problems) - MOST_LINES} rows more without a prediction")
    return UNREAD if found.problems else 0


def _say(line: str) -> None:
    print(f"llm-qfl: {display_safe(line)}", file=sys.stderr)
