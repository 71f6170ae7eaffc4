"""Predictions of a file's rows, written beside its columns."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core import DataError, UserError, atomic_write, real_path
from llm_qfl.model.inputs import STREAM, Input, find_format, read_input, texts_of
from llm_qfl.model.model import Model

if TYPE_CHECKING:
    from pandas import DataFrame

ROW, PREDICTION, PROBABILITY = "row", "prediction", "probability_"
"""Columns of the output: the row's place in the input, from 1; the class; a class's probability."""

WRITTEN = ("csv", "tsv", "jsonl", "parquet")
"""Formats of the output."""


@dataclass(frozen=True)
class Predicted:
    """What became of a file.

    Attributes
    ----------
    table : DataFrame
        The output.
    problems : dict
        What is wrong with the rows without a prediction, by number from 1.
    notes : tuple of str
        What the user should know of how the file was read.
    """

    table: DataFrame
    problems: Mapping[int, str]
    notes: tuple[str, ...]


def predict_file(model: Model, path: str, form: str = "", text_column: str = "") -> Predicted:
    """Predict the rows of a file.

    Parameters
    ----------
    model : Model
        The model.
    path : str
        The file, or ``-`` for the standard input.
    form : str
        Its format, a name of `llm_qfl.model.inputs.FORMATS`; empty: as its name ends.
    text_column : str
        The column of the text or sequence; empty: that of the training, or one with a usual name.

    Returns
    -------
    Predicted
        A table with the row's number, the input's columns, ``prediction`` and a column
        ``probability_<class>`` for each class; empty where a row cannot be read.

    Raises
    ------
    UserError
        If the file cannot be read, or it has a column of these names.
    """
    trained_on = model.settings.data.text_column
    found = read_input(path, find_format(path, form), text_column, trained_on)
    own = [ROW, PREDICTION, *(f"{PROBABILITY}{name}" for name in model.classes_)]
    if taken := [name for name in own if name in found.columns]:
        given = f"{path} has the column {taken[0]!r}, which the output adds"
        raise DataError(given, "a file without it", "rename or remove that column")
    texts = list(texts_of(found))
    left = [place for place in range(len(texts)) if place not in found.problems]
    wrong = model.problems([texts[place] for place in left])
    found.problems |= {left[place]: problem for place, problem in wrong.items()}
    good = [place for place in left if place not in found.problems]
    probabilities = np.full((len(texts), len(model.classes_)), np.nan)
    probabilities[good] = model.predict_proba([texts[place] for place in good])
    numbered = {place + 1: found.problems[place] for place in sorted(found.problems)}
    return Predicted(_table(found, model, good, probabilities), numbered, tuple(found.notes))


def _table(found: Input, model: Model, good: list[int], probabilities: Any) -> DataFrame:
    from pandas import DataFrame

    names = np.full(len(found.rows), None, dtype=object)
    names[good] = model.classes_[probabilities[good].argmax(axis=1)]
    columns: dict[str, Any] = {ROW: np.arange(1, len(found.rows) + 1)}
    columns |= {name: [row.get(name) for row in found.rows] for name in found.columns}
    columns[PREDICTION] = names
    for number, name in enumerate(model.classes_):
        columns[f"{PROBABILITY}{name}"] = probabilities[:, number]
    return DataFrame(columns)


def check_output(output: str, source: str, *, as_json: bool) -> str:
    """Return the output's format, before anything is computed.

    Raises
    ------
    UserError
        If its name says none, or it is the input.
    """
    if output == STREAM:
        return "jsonl" if as_json else "csv"
    if as_json:
        raise UserError("--json with --output", "one of them", "name the output FILE.jsonl")
    form = find_format(output)
    if form not in WRITTEN or output.endswith(".gz"):
        endings = ", ".join(f".{name}" for name in WRITTEN)
        raise UserError(f"--output {output}", f"a name that ends in {endings}", "change it")
    if source != STREAM and real_path(source) == real_path(output):
        raise UserError(f"--output {output} is the input", "another file", "name another")
    return form


def write_output(table: DataFrame, output: str, form: str) -> None:
    """Write a table, whole or not at all; or print it (``-``)."""

    def write(target: Any) -> None:
        if form == "parquet":
            table.to_parquet(target, index=False)
        elif form == "jsonl":
            table.to_json(target, orient="records", lines=True, force_ascii=False)
        else:
            table.to_csv(target, index=False, sep="\t" if form == "tsv" else ",")

    if output == STREAM:
        write(sys.stdout)
    else:
        atomic_write(Path(output).expanduser(), write)
