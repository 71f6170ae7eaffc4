"""What the longer benchmarks share, and that every case of the adapters can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import adapters
from bench.tables import arguments, head, mean_spread, row, store, stored


def test_spread_by_hand() -> None:
    assert mean_spread([0.5, 0.7]) == "0.6000 ± 0.1414"
    assert mean_spread([0.5]) == "0.5000"


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


@pytest.mark.parametrize("case", adapters.CASES, ids=str)
def test_every_case_of_the_adapters_can_be_made(case: adapters.Case) -> None:
    settings = adapters.settings_of(case, 3)
    assert (settings.llm.federated, settings.llm.learning_rate) == (case.federated, case.rate)
    assert settings.run.clients == adapters.CLIENTS
    if case.federated != "none":
        assert settings.llm.rounds == case.rounds


def test_rows_are_as_wide_as_their_head() -> None:
    assert row(["a", "b"]) == "| a | b |"
    assert {line.count("|") for line in head(["a", "b"]).splitlines()} == {3}
