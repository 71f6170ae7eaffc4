"""The parts of a deployed round, from when lines of logs appeared."""

from __future__ import annotations

import time
from pathlib import Path

import flwr.supernode
import pytest

from bench.deploy_watch import STEPS, TRACED, Line, Tail, Watch, parts_of

LAST = len(STEPS) - 1


def message(node: str, begun: float, each: float) -> list[Line]:
    return [Line(begun + each * step, node, step) for step in range(len(STEPS))]


def test_the_parts_make_up_the_round_of_the_node_that_answers_last() -> None:
    seen = message("a", 11.0, 0.1) + message("b", 11.5, 0.2) + message("a", 21.0, 0.5)
    first, second = parts_of([10.0, 15.0, 25.0], seen, len(STEPS))
    assert first == pytest.approx([1.5, *[0.2] * LAST, 3.5 - 0.2 * LAST])
    assert second == pytest.approx([6.0, *[0.5] * LAST, 4.0 - 0.5 * LAST])
    assert [sum(first), sum(second)] == pytest.approx([5.0, 10.0])


def test_a_round_without_a_whole_message_has_no_parts() -> None:
    assert parts_of([1.0, 2.0], [], 4) == []
    assert parts_of([], [], 4) == []
    assert parts_of([10.0, 15.0], message("a", 11.0, 0.1)[1:], len(STEPS)) == []


def test_a_node_sleeps_from_its_answer_to_its_next_message() -> None:
    seen = message("a", 10.0, 0.1) + message("b", 10.0, 0.2) + message("a", 14.0, 0.1)
    watch = Watch({"a": Path(), "b": Path()}, Path(), seen=seen)
    assert watch.sleeps() == pytest.approx([4.0 - 0.1 * LAST])


def test_lines_of_a_log_are_taken_once_and_whole(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "log")
    assert tail.lines() == []
    tail.path.write_text("one\ntw")
    assert tail.lines() == ["one"]
    with tail.path.open("a") as log:
        log.write("o\n")
    assert tail.lines() == ["two"]
    assert tail.lines() == []


@pytest.mark.parametrize("words", [words for words, _ in TRACED])
def test_flower_prints_each_step(words: str) -> None:
    files = Path(flwr.supernode.__path__[0]).rglob("*.py")
    assert any(words in file.read_text(encoding="utf-8") for file in files)


def test_logs_are_watched_while_a_run_goes_on(tmp_path: Path) -> None:
    log, metrics = tmp_path / "node-0.log", tmp_path / "metrics.jsonl"
    with Watch({"node-0": log}, metrics, every=0.001) as watch:
        for number in range(2):
            if number:
                log.write_text("\n".join(words for words, _ in STEPS) + "\n")
                while len(watch.seen) < len(STEPS):
                    time.sleep(0.001)
            with metrics.open("a") as file:
                file.write(f'{{"event": "round", "round": {number}}}\n')
            while len(watch.ends) <= number:
                time.sleep(0.001)
    (parts,) = watch.parts()
    assert sum(parts) == pytest.approx(watch.ends[1] - watch.ends[0])
    assert [line.node for line in watch.seen] == ["node-0"] * len(STEPS)
