"""What the longer benchmarks share, and that every case of theirs is a run that can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import adapters, features
from bench.tables import ROOT, arguments, head, mean_error, mean_spread, row, store, stored
from core import parse_run


def test_spread_and_paired_error_by_hand() -> None:
    assert mean_spread([0.5, 0.7]) == "0.6000 ± 0.1414"
    assert mean_error([0.1, 0.3]) == "+0.2000 ± 0.1000"
    assert (mean_spread([0.5]), mean_error([-0.1]), mean_error([])) == ("0.5000", "-0.1000", "-")


def test_runs_of_other_settings_do_not_count(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    today = {"seed": 0, "given": {"run.rounds": 20}}
    assert stored(out, today) is None
    assert stored(None, today) is None
    store(out, {"seed": 0, "given": {"run.rounds": 3}, "accuracy": 0.1})
    assert stored(out, today) is None
    store(out, {**today, "accuracy": 0.2})
    store(out, {**today, "accuracy": 0.3})
    found = stored(out, today)
    assert found is not None
    assert found["accuracy"] == 0.3
    assert found["commit"]
    assert stored(out, {**today, "seed": 1}) is None


def test_a_data_folder_without_the_data_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments("bench.x", None, "tweet_eval", ["--data", str(tmp_path)])
    assert "holds no tweet_eval/; name the folder that does" in capsys.readouterr().err


@pytest.mark.parametrize("case", list(features.cases(None)), ids=str)
def test_every_case_of_the_features_can_be_made(case: features.Case) -> None:
    config, given = features.assignments(case)
    settings = parse_run([ROOT / "config" / config], list(given))[0]
    assert (settings.quantum.qubits, settings.quantum.uploads) == (case.qubits, case.uploads)
    assert settings.features.projection == case.projection
    shared = settings.features.encoder == "shared"
    assert shared == case.features.startswith("shared")
    assert (settings.features.kind == "embedding") == (case.features != "4-mers")


@pytest.mark.parametrize("case", adapters.CASES, ids=str)
def test_every_case_of_the_adapters_can_be_made(case: adapters.Case) -> None:
    settings = adapters.settings_of(case, 3)
    assert (settings.llm.federated, settings.llm.learning_rate) == (case.federated, case.rate)
    assert settings.run.clients == adapters.CLIENTS
    if case.federated != "none":
        assert settings.llm.rounds == case.rounds


def test_rows_are_as_wide_as_their_head() -> None:
    case = next(features.cases("dna"))
    run = {**dict.fromkeys(features.FIGURES, 0.5), "circuits": 10**6}
    titles = head(features.HEADER).splitlines()
    assert {line.count("|") for line in (*titles, features.row(case, [run, run]))} == {
        len(features.HEADER) + 1
    }
    assert row(["a", "b"]) == "| a | b |"
