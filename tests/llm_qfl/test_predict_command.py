"""`llm-qfl predict`: rows of any file in, predictions out, and each bad row in a line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import UserError
from llm_qfl.cli.app import dispatch
from tests.command import llm_qfl
from tests.llm_qfl.models import tiny_probabilities, write_tiny

ROWS = ["AATTAACC", "GGCCGGCA", "acgt"]
BAD = ["AATTAACC", "", "ACXT", "NNNN", "acgt"]


def _csv(path: Path, rows: list[str]) -> None:
    path.write_text("id,text\n" + "".join(f"x{k},{row}\n" for k, row in enumerate(rows)))


def _tsv(path: Path, rows: list[str]) -> None:
    path.write_text("id\tsequence\n" + "".join(f"x{k}\t{row}\n" for k, row in enumerate(rows)))


def _jsonl(path: Path, rows: list[str]) -> None:
    lines = [json.dumps({"id": f"x{k}", "text": row}) for k, row in enumerate(rows)]
    path.write_text("\n".join(lines))


def _gz(path: Path, rows: list[str]) -> None:
    _csv(path, rows)
    path.write_bytes(gzip.compress(path.read_bytes()))


def _parquet(path: Path, rows: list[str]) -> None:
    from pandas import DataFrame

    DataFrame({"id": [f"x{k}" for k in range(len(rows))], "dna": rows}).to_parquet(path)


WRITERS: dict[str, Callable[[Path, list[str]], Any]] = {
    "rows.csv": _csv,
    "rows.tsv": _tsv,
    "rows.jsonl": _jsonl,
    "rows.csv.gz": _gz,
    "rows.parquet": _parquet,
    "rows.txt": lambda path, rows: path.write_text("\n".join(rows)),
    "rows.fa": lambda path, rows: path.write_text(
        "".join(f">x{k}\n{row[:3]}\n{row[3:]}\n" for k, row in enumerate(rows))
    ),
    "rows.fastq": lambda path, rows: path.write_text(
        "".join(f"@x{k}\n{row}\n+\n{'I' * len(row)}\n" for k, row in enumerate(rows))
    ),
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_format_is_predicted(tmp_path: Path, tiny: Path, name: str) -> None:
    source, output = tmp_path / name, tmp_path / "predictions.csv"
    WRITERS[name](source, ROWS)
    words = ["predict", str(tiny), "--input", str(source), "--output", str(output)]
    assert dispatch(words) == 0
    found = read(output.read_text())
    assert [row["row"] for row in found] == ["1", "2", "3"]
    likely = [[float(row[f"probability_{name}"]) for name in ("rich", "poor")] for row in found]
    expected = tiny_probabilities(ROWS)
    assert np.allclose(likely, expected, atol=1e-6)
    assert [row["prediction"] for row in found] == [
        ("rich", "poor")[k] for k in expected.argmax(axis=1)
    ]
    if "header" in found[0]:
        assert [row["header"] for row in found] == ["x0", "x1", "x2"]
    elif "id" in found[0]:
        assert [row["id"] for row in found] == ["x0", "x1", "x2"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_row_that_cannot_be_read_spoils_no_other(
    tmp_path: Path, tiny: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / name
    WRITERS[name](source, BAD)
    with source.open("a") as file:
        file.write("x9,a,b\n" if name == "rows.csv" else "\n{broken\n" + '{"text": 7}\n')
    assert dispatch(["predict", str(tiny), "--input", str(source)]) == 3
    printed = capsys.readouterr()
    found = read(printed.out)
    predicted = [bool(row["prediction"]) for row in found]
    assert predicted == [True, False, False, False, True] + [False] * (len(found) - 5)
    assert [bool(row["probability_rich"]) for row in found] == predicted
    likely = [float(found[k]["probability_rich"]) for k in (0, 4)]
    assert np.allclose(likely, tiny_probabilities([BAD[0], BAD[4]])[:, 0], atol=1e-6)
    lines = printed.err.splitlines()
    assert lines[0] == "llm-qfl: row 2: no text in 'text'; no prediction"
    assert lines[1].startswith("llm-qfl: row 3: letter 'X' in a DNA sequence; accepted: A, C")
    assert lines[2].startswith("llm-qfl: row 4: n")
    more = {"rows.csv": ["row 6: 3 fields, and 2"], "rows.jsonl": ["row 6: no JSON", "row 7: no t"]}
    for line, text in zip(lines[3:], more[name], strict=True):
        assert line.startswith(f"llm-qfl: {text}")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_the_output_has_the_format_of_its_name(tmp_path: Path, tiny: Path, suffix: str) -> None:
    import pandas

    source, output = tmp_path / "in.csv", tmp_path / f"out.{suffix}"
    _csv(source, [*ROWS, ""])
    words = ["predict", str(tiny), "--input", str(source), "--output", str(output)]
    assert dispatch(words) == 3
    readers: dict[str, Callable[[Path], Any]] = {
        "csv": pandas.read_csv,
        "tsv": lambda path: pandas.read_csv(path, sep="\t"),
        "jsonl": lambda path: pandas.read_json(path, lines=True),
        "parquet": pandas.read_parquet,
    }
    table = readers[suffix](output)
    assert list(table.columns) == [
        *("row", "id", "text", "prediction", "probability_rich", "probability_poor")
    ]
    assert np.allclose(table["probability_rich"][:3], tiny_probabilities(ROWS)[:, 0], atol=1e-6)
    assert math.isnan(table["probability_rich"][3])


def test_another_backend_and_another_column(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a;b\n" + "".join(f"{row};GGGG\n" for row in ROWS))
    words = ["predict", str(tiny), "--input", str(source), "--text-column", "a", "--json"]
    assert dispatch([*words, "--set", "quantum.backend=pennylane:default.qubit"]) == 0
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    likely = [row["probability_poor"] for row in found]
    assert np.allclose(likely, tiny_probabilities(ROWS)[:, 1], atol=1e-6)
    assert "read as separated by semicolons" in printed.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--input", "rows.csv", "--output", "rows.csv"], "--output rows.csv is the input"),
        (["--input", "rows.csv", "--output", "x.xlsx"], "x.xlsx, whose name says no format"),
        (["--input", "rows.csv", "--output", "x.fa"], "--output x.fa; accepted: a name that ends"),
        (["--input", "rows.csv", "--output", "x.csv", "--json"], "--json with --output"),
        (["--input", "none.csv"], "none.csv does not exist"),
        (["--input", "rows.csv", "--format", "xml"], "--format xml; accepted: csv, tsv"),
        (["--input", "rows.csv", "--text-column", "t"], "has no column 't'; accepted: one of its"),
        (
            ["--input", "two.csv"],
            "two.csv has no column 'text'; accepted: one of its columns: a",
        ),
        (["--input", "twice.csv"], "names a column twice"),
        (["--input", "taken.csv"], "has the column 'prediction', which the output adds"),
        (["--input", "quote.csv"], "not csv"),
        (["--input", "head.csv"], "head.csv has no rows"),
        (["--input", "rows.csv", "--format", "parquet"], "rows.csv is no parquet file, or damaged"),
        (["--input", "rows.csv", "--set", "quantum.qubits=3"], "quantum.qubits of a trained model"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path,
    tiny: Path,
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _csv(Path("rows.csv"), ROWS)
    Path("two.csv").write_text("a,b\n1,2\n")
    Path("twice.csv").write_text("text,text\nA,C\n")
    Path("taken.csv").write_text("text,prediction\nA,C\n")
    Path("quote.csv").write_text('text,a\n"ACGT,b\n')
    Path("head.csv").write_text("text,a\n")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert dispatch(["predict", str(tiny), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert says in printed.err
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}


def test_the_command_reads_and_prints_streams(tmp_path: Path, tiny: Path) -> None:
    import os
    import subprocess
    import sys

    from tests.command import ROOT

    done = subprocess.run(
        [sys.executable, "-m", "llm_qfl.cli", "predict", str(tiny), "--input", "-"],
        input="text\nAATTAACC\n",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (row,) = read(done.stdout)
    assert float(row["probability_rich"]) == pytest.approx(tiny_probabilities(ROWS)[0, 0], abs=1e-6)
    nothing = llm_qfl(tmp_path, "predict", "--input", "x.csv")
    assert nothing.returncode == 2
    assert "no trained model in" in nothing.stderr


def test_problems_are_found_by_halves(tiny: Path) -> None:
    from llm_qfl.model import load

    model = load(tiny)
    rows = ["ACGT"] * 37
    for place in (3, 4, 36):
        rows[place] = "?"
    assert list(model.problems(rows)) == [3, 4, 36]
    assert model.problems(["ACGT", "NN"]) == {1: "nothing in it that the features look at"}
    assert model.problems([]) == {}
    with pytest.raises(UserError, match="row 4: letter"):
        model.predict(rows)


def test_a_missing_input_is_one_line_that_names_the_option(tiny: Path) -> None:
    said = llm_qfl(tiny.parent, "predict", str(tiny), "--input", "nowhere.csv")
    assert said.returncode == 2
    assert "nowhere.csv does not exist" in said.stderr
    assert "--input" in said.stderr
