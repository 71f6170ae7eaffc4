"""What the user sees: the lines made from events, and when they are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_qfl.cli import formatting as words
from llm_qfl.cli.follow import Outcome
from llm_qfl.cli.screen import Screen

PREPARED: dict[str, Any] = {
    "event": "prepared",
    "data": "dna-demo",
    "synthetic": True,
    "classes": ["human", "worm"],
    "clients": [
        {
            "client": k,
            "site": f"client {k}",
            "train_rows": 240,
            "val_rows": 60,
            "class_rows": [121, 119],
            "backend": "exact",
            "llm": "dna-tiny",
        }
        for k in range(4)
    ],
    "model": "QCNN su4, 4 qubits",
    "angles": 84,
    "parameters": 86,
    "features": "kmer, 136 -> 4 (lda)",
    "agent": "rule (adaptive)",
    "validation_rows": 300,
    "test_rows": 1000,
    "rounds": 10,
}
ROUND: dict[str, Any] = {
    "event": "round",
    "round": 3,
    "participants": [0, 2, 3],
    "steps": {"0": 20, "2": 34, "3": 20},
    "loss": 0.4123,
    "accuracy": 0.8711,
    "circuits": 3244800,
    "idle_share": 0.123,
    "reason": "more steps where r > 1",
    "failures": ["client 2: update of norm 214\nabove 100"],
}
SUMMARY: dict[str, Any] = {
    "status": "completed",
    "rounds": 10,
    "best_round": 8,
    "stop_reason": "last round",
    "test": {
        "accuracy": 0.934,
        "macro_f1": 0.934,
        "macro_recall": 0.933,
        "loss": 0.2,
        "rows": 1000,
    },
    "baselines": {
        "majority": {"accuracy": 0.505, "macro_f1": 0.336, "macro_recall": 0.5},
        "logistic_projected": {"accuracy": 0.924, "loss": 0.21},
    },
    "teachers": [{"accuracy": 0.9, "loss": 0.3}, {"accuracy": 0.94, "loss": 0.2}],
    "ledger": {"circuits": 86400, "steps": 800},
    "seconds": {"total": 92.4},
}


def test_the_header_says_what_runs() -> None:
    printed = "\n".join(words.header(PREPARED))
    for part in (
        "dna-demo (synthetic): human, worm",
        "960 to train on at 4 clients; held out: 300 for validation, 1,000 for the final test",
        "QCNN su4, 4 qubits: 84 angles, 86 trainable parameters",
        "backend   exact; circuits are simulated, and counted as a device needs them",
        "rule (adaptive); at most 10 rounds",
        "human 121, worm 119",
        "dna-tiny",
        "kmer, 136 -> 4 (lda)",
    ):
        assert part in printed


def test_the_header_keeps_to_its_width_however_much_there_is() -> None:
    many = {
        **PREPARED,
        "classes": [f"a rather long class name {k}" for k in range(9)],
        "clients": [
            {**PREPARED["clients"][0], "client": k, "site": f"hospital number {k} of the north"}
            for k in range(40)
        ],
    }
    lines = words.header(many)
    assert max(map(len, lines)) <= words.WIDTH
    assert "  ... and 28 more" in lines


def test_sites_that_differ_are_counted() -> None:
    clients = [{"backend": b} for b in ("exact", "pennylane:default.qubit", "exact")]
    printed = words.header({**PREPARED, "clients": clients})[4]
    assert printed.startswith(
        "  backend   exact (2), pennylane:default.qubit (1); circuits are simulated"
    )
    clients[1] = {"backend": "ibm:ibm_torino"}
    printed = words.header({**PREPARED, "clients": clients})[4]
    assert "those of simulators are simulated" in printed


def test_a_round_is_one_line() -> None:
    (line,) = words.round_lines(ROUND, 4)
    assert line == (
        "    3  0 2 3    20 34 20       0.412    87.1 % 3,244,800   12 %  more steps where r > 1"
    )
    assert words.ROUND_HEAD.index("reason") == line.index("more")
    for name, figure in (("loss", "0.412"), ("accuracy", "87.1 %"), ("circuits", "3,244,800")):
        assert words.ROUND_HEAD.index(name) + len(name) == line.index(figure) + len(figure)


@pytest.mark.parametrize(
    ("value", "printed"),
    [(None, "-"), (9_999_999, "9,999,999"), (12_345_678, "12.3 M"), (2.5e9, "2.5 G")],
)
def test_circuits_stay_in_their_column(value: float | None, printed: str) -> None:
    assert words.short_count(value) == printed


def test_a_long_reason_goes_below_and_is_kept_whole() -> None:
    reason = " ".join(["because"] * 40)
    figures, *below = words.round_lines({**ROUND, "reason": reason}, 4)
    assert " ".join(" ".join(below).split()) == reason
    assert max(len(line) for line in (figures, *below)) <= words.WIDTH


def test_failures_are_warnings() -> None:
    assert words.warnings(ROUND) == ["     ! client 2: update of norm 214 above 100"]


@pytest.mark.parametrize(
    ("participants", "clients", "printed"),
    [
        ([0, 1, 2, 3], 4, "all 4"),
        ([3, 0], 4, "0 3"),
        (list(range(9)), 10, "9 of 10"),
        ([], 4, ""),
    ],
)
def test_who(participants: list[int], clients: int, printed: str) -> None:
    assert words.who(participants, clients) == printed


@pytest.mark.parametrize(
    ("steps", "printed"),
    [
        ({"0": 20, "1": 20}, "20 each"),
        ({"0": 20, "1": 34}, "20 34"),
        ({"1": 5}, "5"),
        ({}, "-"),
        ({str(k): 10 + k for k in range(9)}, "10 to 18"),
    ],
)
def test_steps(steps: dict[str, int], printed: str) -> None:
    assert words.steps_words(steps, [int(k) for k in steps]) == printed


numbers = st.none() | st.floats(0, 1e6) | st.integers(0, 10**13)


@given(
    st.integers(1, 9999),
    st.sets(st.integers(0, 60), max_size=30),
    numbers,
    st.none() | st.floats(0, 1),
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=300),
)
def test_no_line_is_too_long(
    at: int, participants: set[int], loss: Any, share: Any, reason: str
) -> None:
    event = {
        "round": at,
        "participants": list(participants),
        "steps": {str(k): 7 * k + 1 for k in participants},
        "loss": None if loss is None else loss % 1000,
        "accuracy": share,
        "circuits": loss,
        "idle_share": share,
        "reason": reason,
    }
    assert all(len(line) <= words.WIDTH for line in words.round_lines(event, 61))


def test_the_result_puts_the_model_beside_the_baselines() -> None:
    lines = words.result(SUMMARY)
    assert max(map(len, lines)) <= words.WIDTH
    assert lines[0].split() == [
        "test,",
        "1,000",
        "rows",
        "accuracy",
        "95",
        "%",
        "interval",
        "macro-F1",
        "recall",
        "loss",
    ]
    assert lines[1].split("8)")[1].split() == [
        *("93.4", "%", "91.7-94.8", "%", "0.934", "0.933", "0.200")
    ]
    printed = "\n".join(lines)
    assert "92.4 %" in printed
    assert max(map(len, words.result(SUMMARY, 80))) <= 80
    assert "…" not in "".join(words.result(SUMMARY, 80))
    assert "92.0 %" in printed
    assert (
        "10 rounds, 86,400 circuits, 800 optimizer steps, 1 min 32 s" in printed
    )  # an older record
    assert "last round" in printed


@pytest.mark.parametrize(
    ("simulated", "printed"),
    [
        (86_400, "86,400 circuits simulated, 800"),
        (0, "86,400 circuits executed, 800"),
        (86_000, "86,000 circuits simulated, 400 circuits executed, 800"),
    ],
)
def test_circuits_of_simulators_are_not_called_executed(simulated: int, printed: str) -> None:
    lines = words.result({**SUMMARY, "simulated_circuits": simulated}, 80)
    assert printed in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80


def test_the_cost_of_a_language_model_agent_is_shown_and_of_no_other() -> None:
    cost = {"prompt_tokens": 12_000, "answer_tokens": 800, "seconds": 61.0, "decisions": 10}
    printed = "\n".join(words.result({**SUMMARY, "agent": cost}))
    assert "  agent     12,800 tokens, 1 min 01 s\n" in printed
    printed = "\n".join(words.result({**SUMMARY, "agent": {**cost, "fallbacks": 2}}))
    assert "12,800 tokens, 1 min 01 s; the rule made 2 of 10 decisions" in printed
    rule = {"prompt_tokens": 0, "answer_tokens": 0, "fallbacks": 0}
    assert words.result({**SUMMARY, "agent": rule}) == words.result(SUMMARY)


def test_a_bare_summary_is_no_reason_to_fail() -> None:
    assert words.result({"test": {"accuracy": None}})


FEDERATED: dict[str, Any] = {
    **SUMMARY,
    "test": {
        **SUMMARY["test"],
        "accuracy": 0,
        "sites": 3,
        "failures": ["client 1: no answer\nin time"],
    },
    "ledger": {**SUMMARY["ledger"], "bytes_up": 14200, "bytes_down": 0},
}


def test_a_federated_test_says_how_many_sites_scored() -> None:
    lines = words.result(FEDERATED, 80, 4)
    assert "  test      scored at 3 of 4 sites" in lines
    assert "  sent      14.2 kB by the clients, 0 B to them" in lines
    assert "  test      scored at 3 sites" in words.result(FEDERATED)
    assert "0.0 %" in lines[1]
    assert "scored" not in "".join(words.result(SUMMARY))


def test_a_site_that_did_not_score_is_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    screen = Screen(plain=True, quiet=True)
    screen.event(PREPARED)
    screen.finish(tmp_path, FEDERATED, Outcome(0, ""))
    shown = capsys.readouterr().out
    assert "scored at 3 of 4 sites" in shown
    assert "     ! client 1: no answer in time\n" in shown


def test_round_1_promises_no_fine_tuning_where_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for llm in ("none", "minilm, for embeddings only"):
        screen = Screen(plain=True, quiet=False)
        clients = [{**client, "llm": llm} for client in PREPARED["clients"]]
        screen.event({**PREPARED, "clients": clients})
        screen.tick(started=True, here=True)
        shown = capsys.readouterr().out
        assert "... round 1: every site trains its quantum model" in shown


def test_the_screen_prints_in_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    screen = Screen(plain=True, quiet=False)
    screen.start("demo", tmp_path)
    screen.tick(started=False, here=False)
    screen.tick(started=True, here=False)
    screen.tick(started=True, here=True)
    screen.event(PREPARED)
    screen.tick(started=True, here=True)
    screen.tick(started=True, here=True)
    screen.event({**ROUND, "round": 1})
    screen.event({**ROUND, "round": 2})
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("... round 1: every site fine-tunes its LLM") == 1
    order = [
        "LLM-QFL run 'demo'",
        "... starting Flower",
        "... starting the simulation",
        "... preparing",
        "dna-demo (synthetic)",
        "... round 1",
        "round  clients",
        "    1  0 2 3",
        "! client 2",
        "    2  0 2 3",
    ]
    places = [shown.index(part) for part in order]
    assert places == sorted(places)


def test_quiet_prints_the_result_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    screen = Screen(plain=False, quiet=True)
    screen.start("demo", tmp_path)
    screen.event(PREPARED)
    screen.event(ROUND)
    screen.tick(started=True, here=True)
    assert capsys.readouterr().out == ""
    (tmp_path / "report.html").write_text("")
    screen.finish(tmp_path, SUMMARY, Outcome(0, ""))
    shown = capsys.readouterr()
    assert "93.4 %" in shown.out
    assert str(tmp_path / "report.html") in shown.out
    assert shown.err == ""


def test_a_failure_is_one_line_with_the_place_of_the_logs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Screen(plain=True, quiet=False).finish(tmp_path, {}, Outcome(1, "the run failed: no rows"))
    shown = capsys.readouterr()
    assert shown.err == f"llm-qfl: the run failed: no rows (logs: {tmp_path / 'logs'})\n"


def test_a_thousand_clients_print_no_thousand_lines(capsys: pytest.CaptureFixture[str]) -> None:
    many = {**PREPARED, "clients": PREPARED["clients"] * 250, "warnings": ["odd rows"] * 1000}
    assert len(words.header(many)) < 50
    lost = {**ROUND, "failures": [f"client {k}: no reply in time" for k in range(1000)]}
    shown = words.warnings(lost)
    assert len(shown) == words.MOST_LINES + 1
    assert shown[-1] == "       990 more (metrics.jsonl)"
    screen = Screen(plain=True, quiet=False)
    for client in range(1000):
        screen.event({"event": "late", "round": 1, "client": client, "circuits": 3})
    assert len(capsys.readouterr().out.splitlines()) == words.MOST_LINES + 1
