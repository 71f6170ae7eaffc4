"""The report on the agent: decisions, clients, what FedAvg would have cost, its questions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reporting.agent import (
    LONGEST,
    UNKNOWN,
    agent_section,
    client_table,
    decision_table,
    fedavg_table,
    question_sums,
    questions,
    shortened,
)
from reporting.fedavg_reference import History, fedavg_bill, run_bill, saved, usual_paces
from reporting.formatting import NONE
from reporting.page import CellWithNote
from reporting.record import Record, read_record
from tests.conftest import Federate
from tests.reporting.test_report_page import page_of
from tests.server_app.test_report_runs import make_run, write

EVIL = "<script>alert(1)</script></pre></details>\x00\u202e\ud800"


def view(client: int, **more: Any) -> dict[str, Any]:
    base = {"client": client, "circuits_per_step": 10, "circuits_fixed": 5, "circuit_price": 1.0}
    return {**base, "seconds_per_step": None, "credit": None, "standing": None, **more}


def line(
    at: int, steps: dict[int, int], views: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    chosen = {"participants": list(steps), "steps": {str(k): n for k, n in steps.items()}}
    base = {"round": at, **chosen, "stop": False, "reason": f"why {at}", "guard": []}
    return {**base, "observation": {"plain_steps": 4, "clients": views}, **more}


def client(at: int, k: int, steps: int, seconds: float, **more: Any) -> dict[str, Any]:
    base = {"round": at, "client": k, "steps": steps, "train_seconds": seconds, "dropped": ""}
    return {**base, "circuits": 5 + 10 * steps, "idle_seconds": 0.5, **more}


def small(**more: Any) -> Record:
    """Two rounds of three clients; client 2 costs double and never trains."""
    dear = {"circuit_price": 2.0, "circuits_per_step": 20}
    first = [view(0), view(1), view(2, **dear)]
    second = [
        view(0, seconds_per_step=1.0, credit=0.2, standing=1.0),
        view(1, seconds_per_step=2.0, credit=-0.1, standing=-0.5),
        view(2, **dear),
    ]
    third = [view(0, seconds_per_step=1.5, credit=0.4, standing=1.2), *second[1:]]
    base: dict[str, Any] = {
        "name": "r",
        "prepared": {"clients": [{"client": k, "site": f"site {k}"} for k in range(3)]},
        "clients": (client(1, 0, 3, 3.0), client(1, 1, 2, 4.0), client(2, 0, 8, 12.0)),
        "rounds": (
            {"round": 1, "participants": [0, 1], "aggregated": [0, 1]},
            {"round": 2, "participants": [0], "aggregated": [0]},
        ),
        "decisions": (line(1, {0: 3, 1: 2}, first), line(2, {0: 8}, second)),
        "state": {"round": 2, "views": third},
    }
    return Record(**{**base, **more})


def test_the_timeline_leaves_the_steps_of_each_client_to_the_picture() -> None:
    table = decision_table(small())
    assert tuple(table.head) == ("Round", "Clients", "Steps", "Reason")
    assert table.rows == [["1", "2 of 3", "5", "why 1"], ["2", "1 of 3", "8", "why 2"]]
    assert not table.tall


def test_a_stop_what_the_guard_changed_and_who_decided() -> None:
    decisions = (
        line(1, {0: 3}, [], guard=["nobody chosen"], decided_by="rule (adaptive)", attempts=[]),
        line(2, {}, [], stop=True, reason="enough"),
    )
    table = decision_table(small(decisions=decisions))
    assert table.head[4] == "Decided by"
    assert table.rows[0][3:5] == [CellWithNote("why 1", "guard: nobody chosen"), "rule (adaptive)"]
    assert table.rows[1][:5] == ["2", "stop", NONE, "enough", NONE]


@pytest.mark.usefixtures("no_charts")
def test_many_rounds_scroll_in_a_window_of_their_own(tmp_path: Path) -> None:
    text, _ = page_of(make_run(tmp_path, clients=20, rounds=60))
    assert '<div class="scroll tall" tabindex="0" role="region"' in text


def test_a_row_a_client_with_spend_and_credit() -> None:
    record = small()
    table = client_table(record, History(record))
    assert tuple(table.head[5:8]) == ("Last credit", "Mean credit", "Standing")
    assert table.rows == [
        ["0 · site 0", "2 of 2", "120", "120", "82.8 %", "0.4000", "0.3000", "1.20", "1.0 s"],
        ["1 · site 1", "1 of 2", "25", "25", "17.2 %", "-0.1000", "-0.1000", "-0.50", "0.5 s"],
        ["2 · site 2", "0 of 2", "0", "0", "0.0 %", NONE, NONE, NONE, "0.0 s"],
    ]


def test_without_credit_nothing_is_claimed_of_it() -> None:
    record = small(decisions=(line(1, {0: 3, 1: 2}, [view(0), view(1), view(2)]),), state={})
    table = client_table(record, History(record))
    assert "Last credit" not in table.head
    assert f"(credit) is {UNKNOWN}" in table.note


def test_rounds_of_fedavg_are_everybody_at_its_steps() -> None:
    record = small()
    history = History(record)
    ran, fedavg = run_bill(record, history), fedavg_bill(record, history)
    # Round 1: 3 and 4 s; round 2: one client, who waits for nobody.
    assert (ran.circuits, ran.spend, ran.busy, ran.idle) == (145, 145, 19.0, 1.0)
    # 2 rounds of 45 + 45 + 85 circuits, the last at a price of 2.
    assert (fedavg.circuits, fedavg.spend) == (350, 520)
    # Client 0 took 11 steps in 15 s, of these 8 at 1.5 s; nobody else took FedAvg's 4.
    usual = 15 / 11
    assert usual_paces(history, 4).to_dict() == {0: pytest.approx(usual)}
    assert fedavg.busy == pytest.approx(4 * (3 * usual + 1.5 + 2 * usual))
    assert fedavg.idle == pytest.approx(4 * 2 * (1.5 - usual))
    assert usual_paces(history, 99).to_dict() == {0: pytest.approx(usual), 1: pytest.approx(2.0)}
    assert saved(145, 350) == pytest.approx(0.5857, abs=1e-4)
    assert saved(1, 0) is None
    table = fedavg_table(record, history)
    assert tuple(table.head) == ("Cost", "This run", "2 rounds of FedAvg", "Saved")
    assert table.rows[0] == ["Circuits", "145", "350", "58.6 %"]
    assert "not a claim that FedAvg would have reached the same accuracy" in table.note
    assert "counted as the mean of the others: 1, 2." in table.note


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("agent.circuit_prices=1,2,5",),
        ("evaluation.mode=federated", "data.server_rows=0"),
    ],
    ids=" ".join,
)
def test_a_run_of_fedavg_saves_nothing(federate: Federate, given: tuple[str, ...]) -> None:
    record = read_record(federate("agent.kind=all", "run.rounds=3", *given).folder)
    history = History(record)
    ran, fedavg = run_bill(record, history), fedavg_bill(record, history)
    assert ran.circuits
    assert (ran.circuits, ran.spend) == (fedavg.circuits, fedavg.spend)
    assert [ran.busy, ran.idle] == pytest.approx([fedavg.busy, fedavg.idle])
    assert [row[3] for row in fedavg_table(record, history).rows] == ["0.0 %"] * 4


@pytest.mark.usefixtures("no_charts")
def test_a_recorded_run_of_the_regulator_fills_every_part(federate: Federate) -> None:
    ran = federate("agent.kind=regulator", "run.rounds=3", "agent.circuit_prices=1,1,5")
    text, _ = page_of(ran.folder)
    record = read_record(ran.folder)
    section = agent_section(record)
    assert len(section.tables) == 4
    assert UNKNOWN not in text
    assert "Mean credit" in text
    assert len(section.questions) == len(ran.decisions())
    assert ran.decisions()[0]["attempts"][0]["prompt"] in text
    history = History(record)
    assert run_bill(record, history).circuits == ran.summary["ledger"]["circuits"]


@pytest.mark.usefixtures("no_charts")
def test_what_a_model_said_is_escaped_and_what_it_took_is_summed(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    attempts = [
        {"prompt": "who?", "answer": EVIL, "problem": f"no JSON {EVIL}", "notes": [],
         "prompt_tokens": 1200, "answer_tokens": 100, "seconds": 2.5},
        {"prompt": "who?", "answer": "{}", "problem": "", "notes": [EVIL]},
    ]  # fmt: skip
    told = line(1, {0: 3}, [], reason=EVIL, decided_by=EVIL, attempts=attempts, guard=[EVIL])
    write(folder, "agent.jsonl", [told])
    summary = json.loads((folder / "summary.json").read_text())
    agent = {"decisions": 6, "asked": 7, "fallbacks": 1, "uninformed": 1}
    agent |= {"repaired": 2, "prompt_tokens": 1300}
    write(folder, "summary.json", {**summary, "agent": {**agent, "seconds": 90.0}})
    text, page = page_of(folder)
    assert "script" not in page.names
    assert text.count("&lt;script&gt;") == 7
    assert "&lt;/pre&gt;&lt;/details&gt;\\x00\\u202e\\ud800" in text
    assert "Round 1: 2 questions, the answer was used" in text
    assert "Question 1, 1,200 tokens asked, 100 answered, 2.5 s" in text
    assert f"Question 2, {NONE} tokens asked, {NONE} answered, {NONE}" in text
    assert [row[1] for row in question_sums(read_record(folder)).rows] == [
        "6", "7", "1", "1", "2", "1,300", UNKNOWN, "1 min 30 s",
    ]  # fmt: skip


def test_long_texts_are_cut_and_say_where_the_rest_is() -> None:
    assert shortened("x" * LONGEST, LONGEST) == "x" * LONGEST
    cut = shortened("x" * (LONGEST + 1500), LONGEST)
    assert cut == "x" * LONGEST + "\n[cut here: 1,500 more characters; agent.jsonl has all]"
    assert shortened(None, 9) == UNKNOWN
    attempts = [{"prompt": "p" * 20_000, "answer": "a" * 20_000}]
    many = tuple(line(at, {0: 1}, [], attempts=attempts) for at in range(1, 501))
    shown = [q for one in questions(small(decisions=many)) for q in one.questions]
    texts = [text for q in shown for text in (q.prompt, q.answer)]
    assert sum(map(len, texts)) < 700_000


@pytest.mark.usefixtures("no_charts")
def test_many_rounds_of_questions_are_folded_once_more(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    attempts = [{"prompt": "p", "answer": "a", "problem": ""}]
    write(folder, "agent.jsonl", [line(at, {0: 1}, [], attempts=attempts) for at in range(1, 22)])
    text, page = page_of(folder)
    assert "<details><summary>21 rounds</summary>" in text
    assert page.names["details"] == 1 + 21 + 21 + 1  # folded settings besides


def spoilt() -> list[list[Any]]:
    """Decision lines as older or damaged records have them."""
    whole = line(1, {0: 3}, [view(0), view(1), view(2)])
    return [
        [{}],
        [{"round": 1}],
        [{**whole, "observation": None}],
        [{**whole, "observation": {"clients": "none"}}],
        [{**whole, "observation": {"clients": [None, {"client": 0}, {"client": "x"}]}}],
        [{**whole, "participants": None, "steps": [1], "guard": 7, "reason": None}],
        [{**whole, "participants": ["a", None], "steps": {"0": "many"}, "attempts": "none"}],
        [{**whole, "attempts": [None, {}, {"problem": None, "notes": 3, "seconds": "long"}]}],
    ]


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("lines", spoilt(), ids=lambda lines: re.sub(r"\W+", " ", str(lines))[:40])
def test_a_record_that_lacks_something_says_so(tmp_path: Path, lines: list[Any]) -> None:
    folder = make_run(tmp_path)
    write(folder, "agent.jsonl", lines)
    write(folder, "ledger.json", {})
    text, _ = page_of(folder)
    assert "What FedAvg would have cost" in text
    (folder / "config.json").unlink()
    assert UNKNOWN in page_of(folder)[0]


def test_prices_and_steps_come_from_the_settings_where_no_observation_has_them() -> None:
    settings = {"agent": {"circuit_prices": "1,2,3"}, "train": {"steps": 7}}
    bare = [{"client": k, "circuits_per_step": 10, "circuits_fixed": 5} for k in range(3)]
    decisions = tuple({**line(at, {0: 3}, []), "observation": {"clients": bare}} for at in (1, 2))
    record = small(decisions=decisions, config={"settings": settings}, state={})
    bill = fedavg_bill(record, History(record))
    assert (bill.circuits, bill.spend) == (2 * 3 * 75, 2 * 75 * 6)
