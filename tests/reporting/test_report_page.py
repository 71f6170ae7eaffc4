"""The report, made of generated results folders: whole, failed, cut off, hostile, large."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import DataFrame

from core import DataError
from core.formatting import is_hidden
from reporting import tables, write_report
from reporting.charts import THEME, client_lines, marks, rounds_axis
from reporting.formatting import NONE, duration, outcome, short, size, status
from reporting.record import Record, read_record
from reporting.run_page import build_page
from tests.server_app.test_report_runs import ledger, make_run, summary, write


class Page(HTMLParser):
    """Reads a page: what it links to, its ids, headings, and whether every tag is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.names: dict[str, int] = {}
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names[tag] = self.names.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href") and not re.match(r"#|data:", value or ""):
                self.outside.append(f"{tag} {key}={value}")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(folder: Path) -> tuple[str, Page]:
    text = write_report(folder).read_text(encoding="utf-8")
    return text, Page(text)


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scored(folder: Path, **test: Any) -> Path:
    """Write a run with these scores of its final test."""
    found = summary(4, 6)
    found["test"].update(test)
    make_run(folder)
    write(folder, "summary.json", found)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return page_of(make_run(tmp_path_factory.mktemp("runs") / "20260102-030405-demo"))


def test_a_whole_run_fills_every_section(whole: tuple[str, Page]) -> None:
    text, page = whole
    assert 'class="empty"' not in text
    assert page.names["section"] == 13
    assert page.names["svg"] == 9
    assert page.names["img"] == 1


def test_the_page_needs_nothing_from_outside(whole: tuple[str, Page]) -> None:
    text, page = whole
    assert page.outside == []
    assert "<script" not in text
    assert "@import" not in text
    assert "url(http" not in text


def test_the_page_states_the_result(whole: tuple[str, Page]) -> None:
    said = " ".join(" ".join(whole[1].text).split())
    assert "right on 93.4 % of 1,000 held-out test rows (95 % interval 91.7 % to 94.8 %)" in said
    assert "42.9 points above always saying the majority class" in said
    assert (
        "1.0 points above a logistic regression on the same features, which so few rows cannot "
        "tell from chance" in said
    )
    assert "42.9 points above always saying the majority class and" in said
    assert "dna-demo (synthetic)" in said
    assert "r above 1 at clients 0 and 2: more steps" in said
    assert "Commit 0123abc" in said


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path))
    assert build_page(record) == build_page(record)


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("missing", ["agent.jsonl", "config.json"])
def test_a_missing_file_leaves_a_reason(tmp_path: Path, missing: str) -> None:
    (make_run(tmp_path) / missing).unlink()
    text, _ = page_of(tmp_path)
    assert 'class="empty"' in text


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    make_run(tmp_path)
    end = {"event": "end", "status": "failed", "rounds": 0, "error": "no <clients> & no rows"}
    write(tmp_path, "metrics.jsonl", [end])
    for name in ("summary.json", "ledger.json", "agent.jsonl", "circuit.svg"):
        (tmp_path / name).unlink()
    text, page = page_of(tmp_path)
    assert "The run failed after 0 rounds: no &lt;clients&gt; &amp; no rows." in text
    assert '<span class="status failed">failed</span>' in text
    assert page.names.get("svg", 0) == 0
    assert text.count("no &lt;clients&gt;") == 1
    assert 'class="empty"' not in text
    assert 'href="#ratio"' not in text


@pytest.mark.usefixtures("no_charts")
def test_a_run_that_was_cut_off_is_called_unfinished(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:-1]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines)[:-30], encoding="utf-8")
    text, _ = page_of(tmp_path)
    assert "The run did not come to its end: 5 rounds are on record" in text


@pytest.mark.usefixtures("no_charts")
def test_without_llm_the_ratio_and_teachers_say_so(tmp_path: Path) -> None:
    text, _ = page_of(make_run(tmp_path, llm=False))
    assert "No client had a language model to compare with." in text
    assert "No language model was fine-tuned in this run." in text


@pytest.mark.usefixtures("no_charts")
def test_federated_evaluation_without_confusion(tmp_path: Path) -> None:
    text, _ = page_of(scored(tmp_path, confusion=None, calibration=None))
    assert "or each site kept its own" in text
    assert "right on 93.4 % of 1,000 held-out test rows (95 % interval" in text


@pytest.mark.usefixtures("no_charts")
def test_a_model_that_is_never_right_was_tested_all_the_same(tmp_path: Path) -> None:
    folder = scored(tmp_path, accuracy=0, macro_f1=0, macro_recall=0, loss=0)
    text, _ = page_of(folder)
    assert "There was no final test" not in text
    assert "right on 0.0 % of 1,000 held-out test rows" in text
    assert tables.scores(read_record(folder)).rows[0][1:] == [
        *("0.0 %", "0.0 % to 0.4 %", "0.000", "0.000", "0.000")
    ]


def test_noughts_are_figures(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    lines = events_of(folder)
    for line in lines:
        zeros = ("loss", "accuracy", "ratio", "circuits", "circuits_total", "idle_share")
        line.update(dict.fromkeys((*zeros, "idle_seconds"), 0))
    write(folder, "metrics.jsonl", lines)
    _, page = page_of(folder)
    assert page.names["svg"] == 9


@pytest.mark.usefixtures("no_charts")
def test_sites_that_scored_and_those_that_did_not(tmp_path: Path) -> None:
    text, _ = page_of(scored(tmp_path, sites=3, failures=["client 1: <no> answer"]))
    assert "The run ended because: all rounds done. Scored at 3 of 4 sites. The interval" in text
    assert '<p class="warning">Not scored: client 1: &lt;no&gt; answer</p>' in text


@pytest.mark.usefixtures("no_charts")
def test_what_the_guard_changed_is_a_small_note(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    decision = {"round": 1, "participants": [0, 9], "steps": {"0": 5}, "reason": "because"}
    notes = ["client 9 is unknown", "<5> steps are too few"]
    write(
        folder, "agent.jsonl", [{**decision, "guard": notes}, {**decision, "round": 2, "guard": []}]
    )
    text, _ = page_of(folder)
    note = "guard: client 9 is unknown; &lt;5&gt; steps are too few"
    assert f"<td>because<small>{note}</small></td>" in text
    assert text.count("<small>") == 2  # the other one is in the heading
    assert "<td>because</td>" in text


def entry(at: int, client: int, **costs: float) -> dict[str, float]:
    return {"round": at, "client": client, **costs}


@pytest.mark.usefixtures("no_charts")
def test_preparation_and_final_test_have_costs_of_their_own(tmp_path: Path) -> None:
    folder = make_run(tmp_path, rounds=2)
    costs = ledger(4)
    costs["entries"] = [
        entry(0, 0, bytes_up=1000, bytes_down=10, train_seconds=2.0),
        entry(0, 1, bytes_up=1000),
        entry(1, 0, circuits=50, bytes_up=5),
        entry(2, 3, circuits=0, train_seconds=0.5),
        entry(3, 0, circuits=7),
    ]
    costs["clients"]["17"] = costs["clients"]["0"]  # one that only evaluated
    write(folder, "ledger.json", costs)
    assert tables.stages(read_record(folder)).rows == [
        ["Preparation", "0", "2.0 s", "2 kB", "10 B"],
        ["Rounds", "50", "0.5 s", "5 B", "0 B"],
        ["Final test", "7", "0.0 s", "0 B", "0 B"],
    ]
    text, _ = page_of(folder)
    assert "client 17" in text
    (folder / "summary.json").unlink()
    assert tables.stages(read_record(folder)).rows[-1][0] == "After the last finished round"
    write(folder, "ledger.json", {**costs, "entries": costs["entries"][2:4]})
    assert tables.stages(read_record(folder)).rows == []


def test_what_a_site_writes_is_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    evil = "<script>alert('x')</script>"
    lines = events_of(folder)
    lines[0]["clients"][0].update(site=evil, llm=evil)
    lines[0].update(data=evil, classes=[evil, "worm"])
    write(folder, "metrics.jsonl", lines)
    write(folder, "agent.jsonl", [{"round": 1, "participants": [0], "reason": evil}])
    (folder / "circuit.svg").write_text(evil, encoding="utf-8")
    text, page = page_of(folder)
    assert "<script" not in text
    assert "script" not in page.names


def test_of_many_clients_bands_are_drawn_and_tables_folded(tmp_path: Path) -> None:
    text, page = page_of(make_run(tmp_path / "many", clients=20, rounds=60))
    assert page.names["svg"] == 9
    assert len(text) < 2_000_000
    assert "middle half of them" in text
    assert "border-top: 3px solid var(--c1)" not in text  # no line, and no name, a client
    assert text.count("<summary>20 clients</summary>") == 4
    few, _ = page_of(make_run(tmp_path / "few", clients=12))
    assert "middle half" not in few
    assert "12 clients</summary>" not in few


def test_bands_hold_the_middle_half_of_the_clients() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    grid = DataFrame([[float(k), math.nan if k else 5.0] for k in range(13)], columns=[1, 2])
    client_lines(axes, grid)
    outer, inner = (band.get_paths()[0].get_extents() for band in axes.collections)
    assert (outer.y0, outer.y1) == (0, 12)
    assert (inner.y0, inner.y1) == (3, 9)
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [6, 5]


def test_rounds_are_whole_numbers_on_the_axis() -> None:
    from matplotlib.figure import Figure

    for rounds in ((1,), (1, 2), (1, 2, 3)):
        axes = Figure().add_subplot()
        axes.plot(rounds, rounds)
        rounds_axis(axes, rounds)
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown == list(rounds)


def test_scroll_boxes_are_reached_by_keyboard_and_have_names_of_their_own(
    whole: tuple[str, Page],
) -> None:
    text, _ = whole
    boxes = re.findall(r'<div class="(?:scroll|wide)[^>]*>', text)
    assert len(boxes) > 10
    assert all('tabindex="0"' in box and 'role="region"' in box for box in boxes)
    names = re.findall(r'aria-label="([^"]+)"', text)
    assert len(names) == len(set(names))


def test_charts_take_their_colours_from_the_page(whole: tuple[str, Page]) -> None:
    text, _ = whole
    assert "@media (prefers-color-scheme: dark)" in text
    used = set(re.findall(r"var\((--\w+)[,)]", text))
    for scheme in text.split("<style>")[1].split("color-scheme: dark")[:2]:
        assert used - {"--least", "--back"} <= set(re.findall(r"(--\w+):", scheme))
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not set(THEME) & set(re.findall(r"#[0-9a-f]{6}", drawn))


def test_precision_and_recall_of_each_class(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path))
    assert tables.classes(record).rows == [
        ["human", "505", "92.8 %", "94.3 %", "91.9 % to 96.0 %", "0.935"],
        ["worm", "495", "94.0 %", "92.5 %", "89.9 % to 94.5 %", "0.933"],
    ]


def test_circuits_of_simulators_stand_apart(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    everybody, _ = tables.ledger(read_record(folder))
    assert "Circuits, simulated" in everybody.head
    assert "Circuits, executed" not in everybody.head
    lines = events_of(folder)
    lines[0]["clients"][1]["backend"] = "ibm:ibm_torino"
    write(folder, "metrics.jsonl", lines)
    everybody, each = tables.ledger(read_record(folder))
    kinds = [everybody.head.index(f"Circuits, {kind}") for kind in ("simulated", "executed")]
    assert [everybody.rows[0][k] for k in kinds] == ["17,628,390", "5,876,130"]
    assert [each.rows[1][k] for k in kinds] == [NONE, "5,876,130"]
    text, _ = page_of(folder)
    assert "circuits simulated and executed so far" in text


@pytest.mark.usefixtures("no_charts")
def test_the_gap_between_noisy_clients_and_the_clean_server_is_explained(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert "not overfitting" not in page_of(folder)[0]
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["data"]["label_noise"] = 0.1
    write(folder, "config.json", config)
    assert "10.0 % of their labels are wrong on purpose (label_noise)" in page_of(folder)[0]
    lines = events_of(folder)
    lines[0]["clients"][1]["backend"] = "aer:brisbane"
    write(folder, "metrics.jsonl", lines)
    assert "they measure on aer:brisbane, exact, the server on exact" in page_of(folder)[0]


def test_names_of_sites_and_classes_hide_nothing_and_are_no_formulas(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    lines = events_of(folder)
    lines[0]["clients"][0]["site"] = r"$\frac$ \u202eevil\x1b[2J"
    lines[0]["classes"] = ["a\u2066b\ud83d", "$x$"]
    write(folder, "metrics.jsonl", lines)
    text, _ = page_of(folder)
    assert not [letter for letter in text if is_hidden(letter) and letter != "\n"]
    assert r"$\frac$ \u202eevil\x1b[2J" in text
    assert r"a\u2066b\ud83d" in text


def test_one_client_one_round_one_class_of_numbers(tmp_path: Path) -> None:
    _, page = page_of(make_run(tmp_path, clients=1, rounds=1))
    assert page.names["svg"] == 9


def test_participation_marks_follow_the_events(tmp_path: Path) -> None:
    found = marks(read_record(make_run(tmp_path)))
    assert found["dropped or failed"] == [(3, 2)]
    assert found["trained, not aggregated"] == []


def test_trained_but_not_selected_for_aggregation(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    lines = events_of(folder)
    for line in lines:
        if line["event"] == "round" and line["round"] == 2:
            line["aggregated"] = [0]
    write(folder, "metrics.jsonl", lines)
    assert marks(read_record(folder))["trained, not aggregated"] == [(1, 1), (1, 2), (1, 3)]


def test_a_client_that_never_answered_is_marked_failed(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    lines = events_of(folder)
    lines = [
        x for x in lines if not (x["event"] == "client" and (x["client"], x["round"]) == (0, 5))
    ]
    for line in lines:
        if line["event"] == "round" and line["round"] == 5:
            line["aggregated"].remove(0)
    write(folder, "metrics.jsonl", lines)
    assert (4, 0) in marks(read_record(folder))["dropped or failed"]


def test_settings_are_split_at_the_defaults(tmp_path: Path) -> None:
    changed, others = tables.settings(read_record(make_run(tmp_path)))
    assert [row[0] for row in changed.rows] == ["run.rounds", "train.learning_rate"]
    assert changed.rows[1] == ["train.learning_rate", "0.1", "0.05"]
    assert ["run.seed", "0"] in others.rows


def test_numbers_without_value_are_dashes() -> None:
    record = Record("r", summary={"status": "completed", "test": {"accuracy": None, "rows": 3}})
    assert tables.scores(record).rows[0][1:] == [NONE] * 5
    assert duration(None) == size(None) == NONE
    assert outcome(record) == "The run completed after 0 rounds, without a final test."
    assert status(Record("r")) == "unfinished"


def test_a_grid_has_nan_where_a_client_sat_out(tmp_path: Path) -> None:
    grid = read_record(make_run(tmp_path)).grid("steps")
    assert grid.shape == (4, 6)
    assert math.isnan(grid.loc[1, 3])
    assert grid.loc[0, 1] == 20


def test_short_numbers() -> None:
    assert [short(n) for n in (0, 800, 35_000, 1.2e6, 2e9)] == ["0", "800", "35 k", "1.2 M", "2 G"]


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run in .*accepted: a results folder"):
        write_report(tmp_path)


def test_as_a_program(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    command = [sys.executable, "-m", "reporting", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "report.html")
    command[-1] = str(tmp_path / "absent")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("no run in ")
    assert "Traceback" not in done.stderr
