"""The script that makes `dna-tiny`: its targets, its windows, and a run of a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llm import dna_tiny
from training.pretrain_dna import (
    PAIRS,
    Plan,
    batch_of,
    dinucleotides,
    main,
    random_windows,
    reverse_complement,
)


def test_dinucleotides_closed_form() -> None:
    row = dict(zip(PAIRS, dinucleotides(["AACAA"])[0].tolist(), strict=True))
    assert row["AA"] == 0.5
    assert row["AC"] == 0.25
    assert row["CA"] == 0.25
    assert sum(row.values()) == 1.0
    np.testing.assert_array_equal(dinucleotides(["NNN"]), np.zeros((1, 16)))
    assert dinucleotides(["ANAA"])[0, 0] == 1.0


def test_reverse_complement() -> None:
    assert reverse_complement("AACGN") == "NCGTT"
    assert reverse_complement(reverse_complement("ACGTTGN")) == "ACGTTGN"


def test_windows_and_batches_follow_their_generator() -> None:
    def batch(seed: int) -> list[str]:
        return batch_of(["ACGT" * 50], Plan(batch=6), np.random.default_rng(seed))

    assert batch(1) == batch(1) != batch(2)
    assert len(batch(1)) == 6
    assert set("".join(batch(1))) == set("ACGT")
    assert [len(w) for w in random_windows(3, 17, np.random.default_rng(0))] == [17] * 3


def test_script_writes_a_model_that_loads_and_says_how_it_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "train.csv", tmp_path / "out" / "weights.json"
    rows = random_windows(8, 200, np.random.default_rng(1))
    data.write_text("seq,label\n" + "".join(f"{row.lower()},0\n" for row in rows))
    arguments = ["--data", str(data), "--seed", "3", "--steps", "2", "--output", str(output)]
    assert main(arguments) == 0
    made = dna_tiny.read(output)
    assert made["metadata"]["seed"] == 3
    assert made["metadata"]["rows"] == 8
    assert "--seed 3 --steps 2" in made["metadata"]["command"]
    assert sum(p.numel() for p in dna_tiny.load(output).parameters()) == 435_072
    assert main(arguments) == 0
    assert dna_tiny.read(output)["sha256"] == made["sha256"]
    assert "loss" in capsys.readouterr().out


def test_script_refuses_a_file_without_sequences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "train.csv"
    data.write_text("text,label\nhello,0\n")
    for path, message in ((data, "no column seq"), (tmp_path / "none.csv", "no file")):
        with pytest.raises(SystemExit, match="2"):
            main(["--data", str(path)])
        assert message in capsys.readouterr().err
