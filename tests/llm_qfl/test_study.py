"""`llm_qfl.study`: cells and seeds as runs, finished ones found again, paired differences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import DataFrame

import llm_qfl
from llm_qfl.studies import Study, bootstrap
from tests.llm_qfl.test_python_runs import QUICK


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


QUICKER: dict[str, Any] = {**QUICK, "rounds": 1}


def test_a_study_is_a_run_a_cell_and_seed_and_repeats_none_that_is_complete() -> None:
    given: dict[str, Any] = {"grid": {"train.steps": [1, 3]}, "seeds": [4, 5], **QUICKER}
    del given["train"]
    found = llm_qfl.study(**given)
    table = found.table
    assert list(table["train.steps"]) == [1, 1, 3, 3]
    assert list(table["seed"]) == [4, 5, 4, 5]
    assert set(table["status"]) == {"completed"}
    for row in table.to_dict("records"):
        result = llm_qfl.read(row["folder"])
        assert result.settings["run.seed"] == row["seed"]
        assert result.settings["train.steps"] == row["train.steps"]
        assert result.summary["test"]["loss"] == row["loss"]
        assert result.summary["ledger"]["circuits"] == row["circuits"]
    alone = llm_qfl.run(**{**QUICKER, "train": {"steps": 3}}, seed=5)
    assert alone.summary["test"]["loss"] == table["loss"].iloc[3]
    times = [path.stat().st_mtime_ns for path in sorted(Path("runs/study").rglob("*.jsonl"))]
    assert llm_qfl.study(**given).table.equals(table)
    more = llm_qfl.study(**{**given, "seeds": [4, 5, 6]})
    assert len(more.table) == 6
    after = [path.stat().st_mtime_ns for path in sorted(Path("runs/study").rglob("*.jsonl"))]
    assert set(times) < set(after)
    assert list(found.summary["runs"]) == [2, 2]
    assert "accuracy_gain" in found._repr_html_()


def test_a_failed_cell_is_a_row_and_is_tried_again() -> None:
    given: dict[str, Any] = {"grid": {"stop.circuits": [1, 0]}, **QUICKER}
    found = llm_qfl.study(**given)
    assert list(found.table["status"]) == ["failed", "completed"]
    assert "first round" in found.table["error"].iloc[0]
    assert list(found.summary["runs"]) == [0, 1]
    again = llm_qfl.study(**given).table
    assert again["folder"].iloc[0] == found.table["folder"].iloc[0] + "-2"
    assert again["folder"].iloc[1] == found.table["folder"].iloc[1]


def test_objects_in_a_grid_run_every_time_since_nothing_says_that_they_are_the_same() -> None:
    from llm_qfl.studies import _cells, _digest

    (_, settings), _ = _cells(None, {"agent": ["all", "random"]}, {})
    assert _digest(settings) == _digest(settings)
    assert len(_digest(settings)) == 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": {"agent": "all"}}, r"grid['agent'] = 'all'; accepted: a list of values"),
        ({"grid": {"agent": []}}, r"grid['agent'] = []; accepted: a list of values"),
        ({"grid": {"rounds": [1]}, "seeds": 3}, "seeds = 3; accepted: a list of whole numbers"),
        ({"grid": {"rounds": [1]}, "seeds": []}, "seeds = []; accepted: a list of whole numbers"),
        ({"grid": {"rounds": [1]}, "seeds": [1, "x"]}, "seeds = [1, 'x']; accepted: a list of"),
        ({"grid": {"rounds": [1, 1]}}, "the cell (1,) twice; accepted: each once"),
        ({"grid": {"rounds": [1]}, "reference": 3}, "reference = 3; accepted: (1,); name a cell"),
        ({"grid": {"rounds": [1, "x"]}}, "run.rounds = 'x'; accepted: a whole number"),
    ],
)
def test_mistakes_are_one_line_before_the_first_run(given: dict[str, Any], message: str) -> None:
    with pytest.raises(llm_qfl.UserError, match=re.escape(message)):
        llm_qfl.study(**given)
    assert not Path("runs").exists()


def of(values: dict[str, list[float]]) -> Study:
    """Return a study of accuracies by cell, a seed each."""
    rows = [
        {
            "agent": cell,
            "seed": seed,
            "accuracy": value,
            "loss": 1.0,
            "circuits": 10,
            "seconds": 2.0,
        }
        | {"status": "completed"}
        for cell, column in values.items()
        for seed, value in enumerate(column)
    ]
    return Study(("agent",), DataFrame(rows), ("a",))


def test_differences_are_paired_by_seed() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.1, 20)
    better = base + 0.02 + rng.normal(0, 0.001, 20)
    found = of({"a": list(base), "b": list(better)}).summary.set_index("agent")
    assert found.loc["b", "accuracy"] == pytest.approx(better.mean())
    assert found.loc["b", "accuracy_sd"] == pytest.approx(better.std(ddof=1))
    assert found.loc["b", "accuracy_gain"] == pytest.approx((better - base).mean())
    # Seeds vary by 0.1: unpaired, the interval would be ten times as wide.
    assert 0.019 < found.loc["b", "gain_low"] < 0.02 < found.loc["b", "gain_high"] < 0.021
    assert (found.loc["a", "gain_low"], found.loc["a", "gain_high"]) == (0, 0)
    fewer = of({"a": list(base[:5]), "b": list(better)}).summary.set_index("agent")
    assert fewer.loc["b", "accuracy_gain"] == pytest.approx((better - base)[:5].mean())
    assert np.isnan(of({"a": [0.5], "b": [0.6]}).summary["gain_low"].iloc[1])


def test_the_bootstrap_is_the_closed_form_of_a_large_sample() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, 2000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    low, high = bootstrap(values)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)
    from scipy import stats

    few = values[:12]
    twin = stats.bootstrap((few,), np.mean, method="percentile", n_resamples=10_000, rng=3)
    assert bootstrap(few) == pytest.approx(tuple(twin.confidence_interval), abs=0.05)
