"""A study's figures against closed forms and other methods, and its page."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import DataFrame

from core import DataError
from reporting.study_charts import POINTS, averaged
from reporting.study_figures import costs, holm, interval, median, sign_flip, summarise
from reporting.study_page import write_study
from reporting.study_record import read_study_record, to_target

Runs = dict[str, list[list[float]]]
"""Validation accuracies round by round, of each seed, by cell."""


def made(folder: Path, runs: Runs, **plan: Any) -> Path:
    """Write a study whose rounds cost 10 circuits for client 0 and 20 for client 1."""
    lines = []
    for cell, seeds in runs.items():
        for seed, accuracies in enumerate(seeds):
            name = f"{cell}-{seed}"
            run = folder / name
            run.mkdir(parents=True)
            rounds = [
                {"event": "round", "round": at, "accuracy": value, "loss": 1 - value}
                for at, value in enumerate(accuracies, 1)
            ]
            text = "".join(json.dumps(line) + "\n" for line in rounds)
            (run / "metrics.jsonl").write_text(text)
            entries = [
                {"round": at, "client": k, "circuits": 10 * (k + 1), "bytes_up": 1, "bytes_down": 2}
                | {"train_seconds": k + 1.0, "llm_seconds": 0.5, "queue_seconds": 0.0}
                | {"idle_seconds": 1.0 - k}
                for at in range(len(accuracies) + 1)
                for k in (0, 1)
            ]
            (run / "ledger.json").write_text(json.dumps({"entries": entries}))
            last = accuracies[-1]
            test = {"accuracy": last, "macro_recall": last, "macro_f1": last, "loss": 1 - last}
            summary = {"status": "completed", "test": test, "validation": {"loss": 1 - last}}
            (run / "summary.json").write_text(json.dumps(summary))
            settings = {"agent": {"kind": cell}, "run": {"seed": seed}}
            (run / "config.json").write_text(json.dumps({"settings": settings}))
            about = {"seed": seed, "folder": name, "status": "completed", "error": ""}
            lines.append({"cell": {"agent": cell}, "target": plan.get("target"), **about})
    facts = {"axes": {"agent": list(runs)}, "reference": {"agent": next(iter(runs))}, "figures": []}
    (folder / "study.json").write_text(json.dumps({**facts, **plan, "runs": lines}))
    return folder


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.1, 20)
    better = base + 0.02 + rng.normal(0, 0.001, 20)
    runs = {"a": [[v] for v in base], "b": [[v] for v in better], "c": [[0.1]] * 20}
    found = summarise(read_study_record(made(tmp_path / "s", runs))).set_index("agent")
    assert found.loc["b", "accuracy"] == pytest.approx(better.mean())
    assert found.loc["b", "accuracy_sd"] == pytest.approx(better.std(ddof=1))
    assert found.loc["b", "accuracy_gain"] == pytest.approx((better - base).mean())
    assert found.loc["b", "loss_gain"] == pytest.approx((base - better).mean())
    # Seeds vary by 0.1: unpaired, the interval would be ten times as wide.
    low, high = found.loc["b", ["accuracy_gain_low", "accuracy_gain_high"]]
    assert 0.019 < low < 0.02 < high < 0.021
    assert math.isnan(found.loc["a", "accuracy_gain"])
    assert found.loc["b", "accuracy_holm"] == pytest.approx(2 * found.loc["b", "accuracy_p"])
    fewer = made(tmp_path / "t", {"a": [[v] for v in base[:5]], "b": [[v] for v in better]})
    few = summarise(read_study_record(fewer)).set_index("agent")
    assert few.loc["b", "accuracy_gain"] == pytest.approx((better - base)[:5].mean())
    one = summarise(read_study_record(made(tmp_path / "u", {"a": [[0.5]], "b": [[0.6]]})))
    assert math.isnan(one["accuracy_gain_low"].iloc[1])
    assert one["accuracy_gain"].iloc[1] == pytest.approx(0.1)


def test_the_bootstrap_is_the_closed_form_of_a_large_sample() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, 2000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    low, high = interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)
    assert interval(values) == (low, high)


def test_the_sign_flip_test_counts_signs() -> None:
    # Of 2^5 signs only all plus and all minus are as far from 0.
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 2**5)
    assert sign_flip([1.0, -1.0]) == 1.0
    # Sums of ±1 ±2 ±4: 8 different ones, of which |5| and |7| are as far as 5.
    assert sign_flip([-1.0, 2.0, 4.0]) == pytest.approx(4 / 8)
    assert math.isnan(sign_flip([1.0]))


def test_holm_is_that_of_the_textbook() -> None:
    # Holm 1979 by hand: 0.01 * 4, then 0.02 * 3, 0.03 * 2 (not below the last), 0.04 * 1.
    assert holm([0.04, 0.01, math.nan, 0.03, 0.02])[:2] == pytest.approx([0.06, 0.04])
    assert holm([0.04, 0.01, math.nan, 0.03, 0.02])[3:] == pytest.approx([0.06, 0.06])
    assert math.isnan(holm([math.nan])[0])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_median_is_kaplan_and_meiers() -> None:
    paid, there = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True])
    # S(1) = 3/4, S(3) = 3/8.
    assert median(paid, there) == 3.0
    assert math.isnan(median(paid, np.array([True, False, False, False])))
    assert median(paid, np.ones(4, bool)) == 2.0


def test_the_cost_of_a_target_tells_who_never_got_there(tmp_path: Path) -> None:
    slow, quick, never = [0.1, 0.2, 0.9, 0.9, 0.9], [0.1, 0.9, 0.9, 0.9, 0.9], [0.1] * 5
    runs = {"all": [slow, slow], "half": [quick, never]}
    record = read_study_record(made(tmp_path / "s", runs, target=0.6))
    table = record.table.set_index(["agent", "seed"])
    # The mean of three rounds passes 0.6 in rounds 4 and 3; each costs 30, and so does round 0.
    assert list(table["rounds_to_target"]) == [4, 4, 3, 5]
    assert list(table["circuits_to_target"]) == [150, 150, 120, 180]
    assert list(table["bytes_to_target"]) == [30, 30, 24, 36]
    # As long as the slowest client: 2.5 s a round.
    assert list(table["seconds_to_target"]) == [12.5, 12.5, 10.0, 15.0]
    assert list(table["reached"]) == [True, True, True, False]
    found = costs(record).set_index(["agent", "cost"])
    half = found.loc[("half", "circuits")]
    assert (half["reached"], half["runs"], half["mark"]) == (1, 2, ">=")
    assert half["mean"] == 150
    assert half["median"] == 120
    assert half["saved"] == 0
    assert (half["saved_mark"], half["wins"], half["pairs"]) == ("<=", 1, 2)
    assert found.loc[("all", "circuits"), "mark"] == ""
    # Who gives up early pays little, and wins nothing.
    early = made(tmp_path / "e", {"all": [[0.1, 0.1]], "half": [slow]}, target=0.6)
    row = costs(read_study_record(early)).set_index(["agent", "cost"]).loc[("half", "circuits")]
    assert (row["saved_mark"], row["wins"], row["pairs"]) == (">=", 1, 1)
    assert row["saved"] == pytest.approx(1 - 150 / 90)
    assert costs(read_study_record(made(tmp_path / "t", runs))).empty


def test_a_target_is_reached_where_the_mean_of_three_is_there() -> None:
    curve = DataFrame({"smooth_accuracy": [None, 0.5, 0.7], "rounds": [1.0, 2.0, 3.0]})
    for cost in ("circuits", "spend", "seconds", "idle_seconds", "bytes"):
        curve[cost] = [1.0, 2.0, 3.0]
    assert to_target(curve, 0.5)["circuits_to_target"] == 2
    assert to_target(curve, 0.8)["reached"] is False
    assert to_target(curve, None)["reached"] is None


def test_curves_are_averaged_from_where_all_have_begun_and_last_figures_stay() -> None:
    one = DataFrame({"circuits": [10.0, 20.0], "loss": [1.0, 0.5]})
    other = DataFrame({"circuits": [15.0, 30.0], "loss": [0.8, 0.4]})
    at, mean, _ = averaged([one, other], "circuits", "loss")
    assert list(at) == [15, 20, 30]
    assert list(mean) == pytest.approx([0.9, 0.65, 0.45])
    long = DataFrame({"circuits": np.arange(1.0, 1000), "loss": np.ones(999)})
    assert len(averaged([long], "circuits", "loss")[0]) == POINTS


def test_the_page_shows_cells_differences_curves_costs_and_what_failed(tmp_path: Path) -> None:
    runs = {"all": [[0.5, 0.7, 0.8]] * 3, "<b>half</b>": [[0.6, 0.7, 0.9]] * 3}
    folder = made(tmp_path / "s", runs, target=0.6)
    plan = json.loads((folder / "study.json").read_text())
    plan["runs"][1] |= {"status": "failed", "error": "its process was ended by SIGKILL"}
    plan["runs"][4] |= {"status": "waiting", "folder": ""}
    (folder / "study.json").write_text(json.dumps(plan))
    write_study(folder)
    page = write_study(folder).read_text()  # its own files are no run's
    for text in ("4 of 6 runs are complete, 1 failed", "its process was ended by SIGKILL"):
        assert text in page
    assert "<b>half" not in page
    assert "&lt;b&gt;half&lt;/b&gt;" in page
    assert page.count("<svg") == 8
    assert not re.search(r'(src|href)="(?!#)', page)
    for title in ("Differences from the reference", "Learning curves", "What is missing"):
        assert title in page
    assert "2 of 2" in page  # reached the target
    rows = json.loads((folder / "table.json").read_text())
    assert [row["status"] for row in rows].count("completed") == 4
    with pytest.raises(DataError, match="no study in"):
        read_study_record(tmp_path)


def test_settings_are_those_of_any_run_of_a_cell(tmp_path: Path, no_charts: None) -> None:
    folder = made(tmp_path / "s", {"all": [[0.5]] * 2, "half": [[0.6]] * 2})
    (folder / "half-0" / "config.json").unlink()  # it failed before it began
    page = write_study(folder).read_text()
    assert "agent.kind" in page
    (folder / "half-1" / "config.json").unlink()
    assert "Cells that have begun a run have the same settings" in write_study(folder).read_text()


def test_the_page_of_many_cells_is_small(tmp_path: Path, no_charts: None) -> None:
    runs = {f"agent {k}": [[0.5, 0.6]] for k in range(300)}
    page = write_study(made(tmp_path / "s", runs))
    assert page.stat().st_size < 500_000
    text = page.read_text()
    assert "100 more are in the files" in text
    assert "agent 199" in text
    assert "agent 250" not in text
