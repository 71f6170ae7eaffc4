"""Runs put side by side: recorded ones, hand-written ones, and what is no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import UserError
from llm_qfl.cli.compare import compare_lines
from reporting import comparison_page
from reporting.compare import compare
from reporting.compared_run import read_run, smoothed
from reporting.comparison_page import build_comparison
from tests.command import llm_qfl
from tests.conftest import Federate
from tests.reporting.test_report_page import Page
from tests.server_app.test_report_runs import make_run, write


def change(folder: Path, key: str, value: Any) -> None:
    """Change a setting of a recorded run."""
    config = json.loads((folder / "config.json").read_text())
    section, name = key.split(".")
    config["settings"][section][name] = value
    write(folder, "config.json", config)


def hand_written(folder: Path, accuracies: list[float], **more: Any) -> Path:
    """Write a run with these accuracies: 100 circuits a round and client, 2 clients."""
    make_run(folder, clients=2, rounds=len(accuracies))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "round":
            line.update(accuracy=accuracies[line["round"] - 1], loss=1 - line["round"] / 10)
        line.update(more if line["event"] == "prepared" else {})
    write(folder, "metrics.jsonl", lines)
    ledger = json.loads((folder / "ledger.json").read_text())
    one = {"circuits": 100, "idle_seconds": 0.5, "bytes_up": 10, "bytes_down": 5}
    ledger["entries"] = [
        {"round": at, "client": k, **(one if at else {**one, "circuits": 0, "bytes_up": 1000})}
        for at in range(len(accuracies) + 1)
        for k in range(2)
    ]
    write(folder, "ledger.json", ledger)
    return folder


def test_accuracy_is_averaged_over_three_rounds() -> None:
    assert [smoothed([0.3, 0.6, 0.9, 0.0][:n]) for n in range(5)] == [
        None,
        None,
        None,
        pytest.approx(0.6),
        pytest.approx(0.5),
    ]
    assert smoothed([0.3, 0.6], 2) == pytest.approx(0.45)
    assert smoothed([0.5, float("nan")], 2) is None


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the axes of what is drawn."""
    from matplotlib.figure import Figure

    found: list[Any] = []

    def chart(size: Any, draw: Any, label: str) -> str:
        figure = Figure()
        found.append(figure.add_subplot())
        draw(figure, found[-1])
        figure.canvas.draw()
        return "<svg></svg>"

    monkeypatch.setattr(comparison_page, "chart", chart)
    return found


def test_every_round_is_a_dot_and_the_line_begins_with_the_third(
    tmp_path: Path, drawn: list[Any]
) -> None:
    run = read_run(hand_written(tmp_path / "one", [0.981, 0.982, 0.983, 0.984]))
    assert comparison_page.curves([run], [[0]], "round", "accuracy")
    dots, line = drawn[0].lines
    assert dots.get_xydata().tolist() == [[1, 0.981], [2, 0.982], [3, 0.983], [4, 0.984]]
    assert np.isnan(line.get_ydata()[:2]).all()
    assert line.get_ydata()[2:].tolist() == pytest.approx([0.982, 0.983])
    ticks = [text.get_text() for text in drawn[0].get_yticklabels()]
    assert len(set(ticks)) == len(ticks)


@pytest.mark.parametrize(("times", "scale"), [(5, "linear"), (10, "log")])
def test_costs_that_differ_tenfold_have_a_logarithmic_axis(
    tmp_path: Path, drawn: list[Any], times: int, scale: str
) -> None:
    cheap, dear = (hand_written(tmp_path / name, [0.5, 0.9, 0.9]) for name in ("cheap", "dear"))
    ledger = json.loads((dear / "ledger.json").read_text())
    for entry in ledger["entries"]:
        entry["circuits"] *= times
    write(dear, "ledger.json", ledger)
    runs = [read_run(cheap), read_run(dear)]
    comparison_page.curves(runs, [[0], [1]], "circuits", "accuracy")
    assert drawn[0].get_xscale() == scale


@pytest.mark.usefixtures("no_charts")
def test_runs_that_differ_in_their_seed_alone_are_a_group(tmp_path: Path) -> None:
    folders = [hand_written(tmp_path / name, [0.5, 0.9, 0.9]) for name in "abcd"]
    for folder, seed, steps in zip(folders, (0, 1, 0, 1), (10, 10, 20, 20), strict=True):
        change(folder, "run.seed", seed)
        change(folder, "train.steps", steps)
    runs = [read_run(folder) for folder in folders]
    found = compare(runs, None)
    assert found["groups"] == [[0, 1], [2, 3]]
    assert found["warning"] == ""  # the same seeds on either side
    assert "run.seed" in compare(runs[:3], None)["warning"]
    text = build_comparison(runs, found)
    assert "<td>a, b</td>" in text
    assert "border-top: 3px solid var(--c1)" in text
    assert "border-top: 3px solid var(--c2)" not in text
    lines = "\n".join(compare_lines(found))
    assert "A B: other seeds of one run; test accuracy 93.4 % (mean), 93.4 % to 93.4 %" in lines
    assert "95 % interval" in lines
    assert "91.7 % to 94.8 %" in text
    text = build_comparison(runs[:3], compare(runs[:3], None))
    assert text.count("93.4 % to 93.4 %") == 1  # one seed has no lowest and highest


def test_the_lines_fit_a_terminal_of_80_columns(tmp_path: Path) -> None:
    runs = [read_run(hand_written(tmp_path / f"r{k}", [0.5, 0.9, 0.9])) for k in range(9)]
    lines = compare_lines(compare(runs, None))
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("test accuracy") for line in lines) > 1  # the rest stands below


def test_what_each_spent_until_it_first_reached_the_target(tmp_path: Path) -> None:
    fast = read_run(hand_written(tmp_path / "fast", [0.5, 0.9, 0.9, 0.9, 0.2]))
    slow = read_run(hand_written(tmp_path / "slow", [0.5, 0.5, 0.5, 0.8, 0.8, 0.8]))
    found = compare([fast, slow], None)
    assert found["target"] == pytest.approx(0.8)  # slow's best of three; fast's is 0.9
    assert not found["given"]
    assert [run["reached"] for run in found["runs"]] == [
        {"round": 4, "circuits": 800, "idle_seconds": 5.0, "bytes": 4 * 30 + 2010},
        {"round": 6, "circuits": 1200, "idle_seconds": 7.0, "bytes": 6 * 30 + 2010},
    ]
    found = compare([fast, slow], 0.85)
    assert found["given"]
    assert [run["reached"] and run["reached"]["round"] for run in found["runs"]] == [4, None]


def test_recorded_runs_side_by_side(federate: Federate, tmp_path: Path) -> None:
    given = ("run.rounds=4", "agent.circuit_prices=1,1,5")
    folders = [federate(f"agent.kind={kind}", *given).folder for kind in ("all", "regulator")]
    runs = [read_run(folder) for folder in folders]
    found = compare(runs, None)
    assert found["warning"] == ""
    assert set(found["settings"]) == {"agent.kind"}
    plain, ours = found["runs"]
    assert (plain["agent"], plain["status"]) == ("all", "completed")
    for run, folder in zip(found["runs"], folders, strict=True):
        summary = json.loads((folder / "summary.json").read_text())
        assert run["test_accuracy"] == summary["test"]["accuracy"]
        assert run["majority"] == summary["baselines"]["majority"]["accuracy"]
        assert run["linear"] == summary["baselines"]["logistic_projected"]["accuracy"]
        assert run["circuits"] == summary["ledger"]["circuits"]
        assert run["reached"] is not None
    assert ours["spend"] < plain["spend"]
    page = Page(text := build_comparison(runs, found))
    assert page.names["svg"] == 4
    assert page.outside == []
    assert "Settings in which they differ" in text
    assert text == build_comparison(runs, found)


@pytest.mark.parametrize(
    ("key", "value", "differing"),
    [
        ("run.seed", 9, "seed (run.seed)"),
        ("data.source", "csv", "data (data.source)"),
        ("data.train_rows", 7, "rows (data.train_rows)"),
        ("data.noisy_clients", 1, "partition (data.noisy_clients)"),
    ],
)
def test_runs_on_other_data_are_not_comparable(
    tmp_path: Path, key: str, value: Any, differing: str
) -> None:
    folders = [make_run(tmp_path / name) for name in "ab"]
    change(folders[1], key, value)
    found = compare([read_run(folder) for folder in folders], None)
    assert found["warning"] == f"not comparable: the runs differ in {differing}"
    assert list(found["settings"]) == [key]


def test_other_data_in_the_same_files_is_found_too(tmp_path: Path) -> None:
    one = hand_written(tmp_path / "a", [0.5])
    other = hand_written(tmp_path / "b", [0.5], test_rows=999, data="other")
    found = compare([read_run(one), read_run(other)], None)
    assert found["warning"] == (
        "not comparable: the runs differ in data (as found by the sites); "
        "rows (as found by the sites)"
    )


def test_a_name_is_no_setting(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in "ab"]
    change(folders[0], "run.name", "other")
    found = compare([read_run(folder) for folder in folders], None)
    assert (found["settings"], found["warning"]) == ({}, "")


@pytest.mark.usefixtures("no_charts")
def test_unfinished_and_older_runs_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    whole, cut, begun, failed, old = (make_run(tmp_path / name) for name in "abcde")
    (cut / "summary.json").unlink()
    text = (cut / "metrics.jsonl").read_text()
    (cut / "metrics.jsonl").write_text(text[: text.index('{"event": "round", "round": 4')] + '{"ev')
    for name in ("summary.json", "metrics.jsonl", "ledger.json", "agent.jsonl"):
        (begun / name).unlink()
    write(failed, "metrics.jsonl", [{"event": "end", "status": "failed", "error": "no rows"}])
    for name in ("summary.json", "ledger.json"):
        (failed / name).unlink()
    config = json.loads((old / "config.json").read_text())
    del config["settings"]["agent"]["circuit_prices"]
    write(old, "config.json", config)
    (old / "ledger.json").unlink()
    runs = [read_run(folder) for folder in (whole, cut, begun, failed, old)]
    found = compare(runs, None)
    summaries = [(run["status"], run["rounds"], run["test_accuracy"]) for run in found["runs"]]
    assert summaries == [
        ("completed", 6, 0.934),
        ("unfinished", 3, None),
        ("unfinished", 0, None),
        ("failed", 0, None),
        ("completed", 6, 0.934),
    ]
    assert found["runs"][3]["error"] == "no rows"
    assert found["runs"][4]["spend"] is None
    assert found["runs"][2]["reached"] is None
    assert found["settings"]["agent.circuit_prices"] == ["1", "1", "1", "1", None]
    assert "unfinished" in build_comparison(runs, found)
    nobody = compare([runs[2], runs[3]], None)
    assert nobody["target"] is None
    assert "No run has finished a round." in build_comparison(runs[2:4], nobody)


@pytest.mark.usefixtures("no_charts")
def test_what_runs_say_is_escaped(tmp_path: Path) -> None:
    evil = "<script>x</script>"
    folders = [hand_written(tmp_path / name, [0.5, 0.6], agent=evil, data=evil) for name in "ab"]
    change(folders[0], "llm.model", evil)
    runs = [read_run(folder) for folder in folders]
    page = Page(build_comparison(runs, compare(runs, None)))
    assert "script" not in page.names


@pytest.mark.usefixtures("no_charts")
def test_damage_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    spoilt = {
        "config.json": ("{", "config.json: no JSON (Expecting property name"),
        "summary.json": ("[1]", "summary.json: no JSON object"),
        "ledger.json": ("", "ledger.json: no JSON (Expecting value)"),
        "metrics.jsonl": (
            '{"event": "prepared"}\n{]\n',
            "metrics.jsonl line 2: no JSON (Expecting",
        ),
    }
    whole = read_run(make_run(tmp_path / "whole"))
    for name, (text, named) in spoilt.items():
        folder = make_run(tmp_path / name)
        (folder / name).write_text(text)
        run = read_run(folder)
        (damage,) = run.damaged
        assert damage.startswith(named)
        found = compare([whole, run], None)
        assert found["settings"] == {}
        assert ("settings unknown: config.json" in found["warning"]) == (name == "config.json")
        assert f"{name}, damaged and left out: {named}" in build_comparison([whole, run], found)
    folder = make_run(tmp_path / "odd")
    write(folder, "metrics.jsonl", [{"event": "round", "round": "x", "participants": 7}])
    assert read_run(folder).points.empty
    with pytest.raises(UserError, match="no run in"):
        read_run(tmp_path / "nowhere")


def test_the_command_prints_tables_and_writes_one_page(tmp_path: Path) -> None:
    hand_written(tmp_path / "one", [0.5, 0.6, 0.7])
    two = hand_written(tmp_path / "two", [0.5, 0.5, 0.5])
    change(two, "run.seed", 3)
    done = llm_qfl(tmp_path, "compare", "one", str(two), "--target", "0.55")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "A   one",
        "B   two",
        "warning: not comparable: the runs differ in seed (run.seed)",
    ]
    assert "first at validation accuracy 55.0 % (as asked)," in lines
    words = [line.split() for line in lines]
    assert ["round", "3", "never"] in words
    assert ["run.seed", "0", "3"] in words
    assert lines[-1] == f"picture   {tmp_path.resolve() / 'compare.html'}"
    assert Page((tmp_path / "compare.html").read_text()).names["svg"] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["compare.html", "one", "two"]
    done = llm_qfl(tmp_path, "compare", "one", "two", "--json", "--out", "new/page.html")
    found = json.loads(done.stdout)
    assert found["page"] == str(tmp_path.resolve() / "new" / "page.html")
    assert [len(points) for points in found["points"]] == [3, 3]
    assert (tmp_path / "new" / "page.html").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("one",), "one run; accepted: two or more runs"),
        (("one", "./one"), "one run; accepted"),
        (("one", "two", "one"), "a run named twice"),
        (("one", "nowhere"), "no run in"),
        (("one", "two", "--target", "90"), "--target 90.0; accepted: an accuracy above 0"),
        (("one", "two", "--target", "nan"), "--target nan"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, clients=2, rounds=1)
    done = llm_qfl(tmp_path, "compare", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("llm-qfl: ")
    assert expected in done.stderr
    assert not (tmp_path / "compare.html").exists()


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, clients=2, rounds=1)
    done = llm_qfl(tmp_path, "compare", "one", "two", "--out", "one")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "could not be compared: cannot use" in done.stderr
