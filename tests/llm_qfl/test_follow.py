"""Reading files that are still being written, and judging how a run ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_qfl.cli.flower import read_status
from llm_qfl.cli.follow import (
    ClientLines,
    Evidence,
    Outcome,
    Tail,
    last_error,
    last_words,
    outcome_of,
    read_log,
    strip_log,
)
from llm_qfl.cli.formatting import LONGEST, one_line, plain_text
from llm_qfl.cli.screen import MOST_CLIENT_LINES, Screen


def test_a_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    tail = Tail(path)
    assert tail.new() == []
    with path.open("wb") as file:
        for part, seen in (
            (b'{"round": 1}\n{"rou', [{"round": 1}]),
            (b"", []),
            (b'nd": 2, "why": "\xc3', []),
            (b'\xa9"}\n\n{"round": 3}\n', [{"round": 2, "why": "é"}, {"round": 3}]),
        ):
            file.write(part)
            file.flush()
            assert tail.new() == seen


def test_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n[1]\n\xff\n{"a": 2}\n')
    tail = Tail(path)
    assert tail.new() == [{"a": 1}, {"a": 2}]


def test_the_clients_own_lines_are_found_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    clients = ClientLines(path)
    assert clients.new() == []
    first = (
        b"INFO :      preparing 2 clients\n"
        b"\x1b[36m(ClientAppActor pid=7)\x1b[0m \x1b[92mINFO \x1b[0m:      client 1: m: epoch 1/3\n"
        b"(ClientAppActor pid=7) ERROR :     client 1: no\n"
        b"INFO :      client 0: m: embe"
    )
    path.write_bytes(first)
    assert clients.new() == ["client 1: m: epoch 1/3"]
    assert clients.new() == []
    whole = first + b"dding\x1b[2J\nINFO :      client 1: m: epoch 1/3\n"
    path.write_bytes(whole)
    assert clients.new() == ["client 0: m: embedding"]
    path.write_bytes(first)  # the stream broke, and the log begins again
    assert clients.new() == []
    path.write_bytes(whole + b"INFO :      client 1: m: epoch 2/3\n")
    assert clients.new() == ["client 1: m: epoch 2/3"]


def test_the_clients_do_not_flood_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(plain=True, quiet=False)
    for number in range(200):
        screen.client(f"client {number}: m: epoch 1/1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  client 0: m: epoch 1/1"
    assert len(lines) == MOST_CLIENT_LINES + 1
    assert lines[-1].endswith("are in logs/run.log")


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())), st.data())
def test_however_the_file_is_cut_every_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, object]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("tail") / "m.jsonl"
    content = "".join(json.dumps(event) + "\n" for event in events).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    tail, seen = Tail(path), []
    for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
        with path.open("ab") as file:
            file.write(content[start:stop])
        seen += tail.new()
    assert seen == events


DONE = {"status": "completed"}


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (Evidence("finished:completed", "N/A", DONE), Outcome(0, "")),
        (
            Evidence("finished:completed", summary={"status": "failed", "error": "no rows"}),
            Outcome(1, "the run failed: no rows"),
        ),
        (
            Evidence("finished:completed", log_error="ValueError: x"),
            Outcome(1, "Flower ended, but no summary was written: ValueError: x"),
        ),
        (
            Evidence("finished:failed", "N/A", DONE),
            Outcome(1, "the run failed: Flower gives no reason"),
        ),
        (
            Evidence("finished:failed", "Simulation failed with exception: boom"),
            Outcome(1, "the run failed: boom"),
        ),
        (
            Evidence("finished:failed", "No heartbeat received from the task"),
            Outcome(
                1,
                "the run failed: its server process was killed, hangs, or lost its SuperLink "
                "(No heartbeat received from the task)",
            ),
        ),
        (
            Evidence("finished:failed", "N/A", {}, {"error": "two\nlines"}, "KeyError: 'x'"),
            Outcome(1, "the run failed: two lines"),
        ),
        (Evidence("finished:stopped"), Outcome(1, "the run was stopped from outside")),
        (
            Evidence("running", superlink_died=True, superlink_tail="killed"),
            Outcome(1, "Flower's SuperLink ended while the run went on; its last line: killed"),
        ),
        (Evidence(launch_error="no port"), Outcome(1, "no port")),
        (
            Evidence("finished:completed", "", DONE, interrupted=True),
            Outcome(130, "interrupted before the run was over"),
        ),
    ],
)
def test_the_outcome(evidence: Evidence, outcome: Outcome) -> None:
    assert outcome_of(evidence) == outcome


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence("finished:failed", summary={"error": "Traceback\n" + "x " * 900}),
        Evidence("finished:stopped", log_error="ValueError: \x1b[31m" + "no\trows " * 200),
        Evidence(superlink_died=True, superlink_tail="a\r\n" * 400),
        Evidence(launch_error="Flower did not take the run:\n" + "why " * 300),
    ],
)
def test_a_long_error_is_cut_to_one_readable_line(evidence: Evidence) -> None:
    line = outcome_of(evidence).line
    assert len(line) == LONGEST
    assert line.count("…") == 1
    assert line.isprintable()
    assert "  " not in line


def test_a_long_error_keeps_what_to_do() -> None:
    fix = "check the network and the name, or set data.path to a local copy."
    line = outcome_of(
        Evidence("finished:failed", summary={"error": "4 of 4: " + "why " * 99 + fix})
    ).line
    assert line.startswith("the run failed: 4 of 4: why ")
    assert line.endswith(fix)


def test_one_line_of_anything() -> None:
    assert one_line("a\n\tb\x1b[2J c\x00\u2028d") == "a b c d"
    assert one_line(None) == ""
    assert one_line(0) == "0"


statuses = st.sampled_from(["", "running", "finished:completed", "finished:failed"])
summaries = st.sampled_from([{}, {"status": "completed"}, {"status": "failed"}])


@given(statuses, summaries, st.booleans(), st.booleans())
def test_zero_only_if_both_say_completed(
    status: str, summary: dict[str, str], died: bool, interrupted: bool
) -> None:
    outcome = outcome_of(
        Evidence(status, "", summary, superlink_died=died, interrupted=interrupted)
    )
    both = status == "finished:completed" and summary == {"status": "completed"}
    assert (outcome.code == 0) == (both and not interrupted)
    assert bool(outcome.line) == (outcome.code != 0)
    assert "\n" not in outcome.line


def test_flowers_answer_is_read() -> None:
    run = {"run-id": "1", "status": "finished:failed", "status-details": "boom"}
    answer = json.dumps({"success": True, "runs": [run]}, indent=2)
    assert read_status(answer) == ("finished:failed", "boom")
    assert read_status("a warning\n" + answer) == ("finished:failed", "boom")


@pytest.mark.parametrize("answer", ["", "Error", "{}", '{"runs": []}', '{"runs": [{}]}', "{["])
def test_no_answer_is_no_status(answer: str) -> None:
    assert read_status(answer) == ("", "")


LOG = """\x1b[92mINFO \x1b[0m: start
Traceback (most recent call last):
  File "x.py", line 3, in f
    raise ValueError("no")
core.errors.DataError: no file 'x'; accepted: a file; check the path.
\x1b[91mERROR\x1b[0m: Exit Code: 700
"""


def test_the_last_error_of_a_log() -> None:
    assert last_error(plain_text(LOG)).startswith("core.errors.DataError: no file 'x'")
    assert last_error("(ClientAppActor pid=12) KeyError: 'a'") == "KeyError: 'a'"
    assert last_error("all is well: no Error here\n") == ""


def test_the_last_words_come_out_of_their_box() -> None:
    box = "Using x\n╭─ Error ─────╮\n│ Invalid file:   │\n│ - no key.       │\n╰───────╯\n"
    assert last_words(box) == "Invalid file: - no key."
    assert last_words("Error: gone\n\n") == "gone"
    assert last_words("\n \n") == ""


def test_a_log_loses_its_colours(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text(LOG)
    strip_log(log)
    assert "\x1b" not in log.read_text()
    assert read_log(tmp_path / "absent.log") == ""
