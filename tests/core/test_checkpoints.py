"""Checkpoints are whole or absent, and the record can be cut back to one of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core import (
    Settings,
    UserError,
    append_jsonl,
    by_number,
    may_change,
    parse_run,
    read_json,
    recorded_settings,
    refuse_changes,
    write_json,
)
from core.storage.checkpoints import (
    MOST_KEPT,
    alone,
    checkpoint_folders,
    count_releases,
    last_checkpoint,
    note_releases,
    note_underway,
    rewind,
    settle_repeated,
    write_checkpoint,
)

RECORD = "metrics.jsonl"


def grow(run: Path, number: int, text: str = "arrays") -> None:
    """Append a line to each record, and keep a checkpoint."""
    for name in ("metrics.jsonl", "agent.jsonl"):
        append_jsonl(run / name, {"round": number})
    write_checkpoint(
        run, number, {"round": number}, lambda folder: (folder / "model").write_text(text)
    )


def last(run: Path) -> Any:
    found = last_checkpoint(run)
    assert found is not None
    return found


def test_the_last_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for number in (0, 1, 2):
        grow(tmp_path, number)
    found = last(tmp_path)
    assert (found.number, found.state["round"], found.damaged) == (2, 2, ())
    assert (found.folder / "model").read_text() == "arrays"


def test_the_newest_are_kept_and_no_more(tmp_path: Path) -> None:
    for number in range(MOST_KEPT + 4):
        grow(tmp_path, number)
    assert [path.name for path in checkpoint_folders(tmp_path)] == [
        f"round-{number:03d}" for number in range(4, MOST_KEPT + 4)
    ]


def test_one_is_not_pushed_out_by_later_ones_that_are_of_no_use(tmp_path: Path) -> None:
    """A run of an earlier version has them all; its records were cut, and it went on from 2."""
    grow(tmp_path, 1)
    grow(tmp_path, 2)
    for number in range(3, MOST_KEPT + 5):
        (tmp_path / "checkpoint" / f"round-{number:03d}").mkdir()
    assert last(tmp_path).number == 2
    grow(tmp_path, 3)
    assert last(tmp_path).number == 3


@pytest.mark.parametrize("name", ["model", "state.json", "manifest.json"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, name: str) -> None:
    grow(tmp_path, 1)
    grow(tmp_path, 2)
    path = tmp_path / "checkpoint" / "round-002" / name
    path.write_bytes(path.read_bytes()[:-2])
    found = last(tmp_path)
    assert (found.number, found.damaged) == (1, ("round-002",))


def test_one_whose_record_was_lost_is_passed_over(tmp_path: Path) -> None:
    grow(tmp_path, 1)
    grow(tmp_path, 2)
    (tmp_path / "agent.jsonl").write_text('{"round": 1}\n')
    assert last(tmp_path).number == 1


def test_another_format_is_refused_and_not_guessed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {}, lambda folder: None)
    folder = tmp_path / "checkpoint" / "round-001"
    state = {**read_json(folder / "state.json"), "format": 99}
    write_json(folder / "state.json", state)
    assert last_checkpoint(tmp_path) is None  # its digest is another
    digest = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
    write_json(folder / "manifest.json", {"files": {"state.json": digest}})
    with pytest.raises(UserError, match="has format 99; accepted: format 1; resume with the ver"):
        last_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_one_before(tmp_path: Path) -> None:
    grow(tmp_path, 1, "first")

    def fail(folder: Path) -> None:
        (folder / "model").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, 1, {}, fail)
    assert (last(tmp_path).folder / "model").read_text() == "first"
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["round-001"]


def test_a_round_that_is_done_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    grow(tmp_path, 1, "first")
    grow(tmp_path, 1, "second")
    assert (last(tmp_path).folder / "model").read_text() == "second"


def test_rewinding_cuts_what_came_later_and_only_that(tmp_path: Path) -> None:
    grow(tmp_path, 1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    found = last(tmp_path)
    append_jsonl(tmp_path / "metrics.jsonl", {"round": 2})
    with (tmp_path / "agent.jsonl").open("a") as file:
        file.write('{"round": 2, "half')
    write_json(tmp_path / "summary.json", {"status": "failed"})
    for _ in range(2):  # doing it twice is doing it once
        rewind(tmp_path, found)
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
        assert (tmp_path / "agent.jsonl").read_text() == '{"round": 1}\n'
        assert not (tmp_path / "summary.json").exists()


def test_costs_of_rounds_done_again_are_counted_once(tmp_path: Path) -> None:
    grow(tmp_path, 3)
    note_underway(tmp_path, 4, {1: {"circuits": 7}, 0: {"circuits": 5}})
    first = settle_repeated(tmp_path, 3)
    assert [(e["round"], e["client"], e["circuits"]) for e in first] == [(4, 0, 5), (4, 1, 7)]
    assert settle_repeated(tmp_path, 3) == first
    # Killed between writing the book and dropping the note: the same note is there again.
    note_underway(tmp_path, 4, {1: {"circuits": 7}, 0: {"circuits": 5}})
    assert settle_repeated(tmp_path, 3) == first
    # Broken off a second time, with other costs; and going on itself costs something.
    note_underway(tmp_path, 4, {1: {"circuits": 8}})
    more = [{"round": 3, "client": 0, "bytes_up": 2}]
    assert settle_repeated(tmp_path, 3, more) == [
        *first,
        {"round": 4, "client": 1, "circuits": 8},
        *more,
    ]


def test_a_closed_round_beyond_a_damaged_checkpoint_was_paid_too(tmp_path: Path) -> None:
    entries = [{"round": n, "client": 0, "circuits": 10 * n} for n in (1, 2)]
    write_json(tmp_path / "ledger.json", {"entries": entries})
    note_underway(tmp_path, 2, {0: {"circuits": 20}})  # the same round, before it was closed
    assert settle_repeated(tmp_path, 1) == [entries[1]]


def test_what_a_closed_round_had_noted_is_dropped(tmp_path: Path) -> None:
    note_underway(tmp_path, 1, {0: {"circuits": 3}})
    grow(tmp_path, 1)
    assert settle_repeated(tmp_path, 1) == []


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from core.storage.checkpoints import alone\n"
        "with alone(Path(sys.argv[1])): pass"
    )
    with alone(tmp_path):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "is still going on" in other.stderr
        assert "a run on a deployment goes on without its launcher" in other.stderr
    with alone(tmp_path):
        pass


# --- settings -----------------------------------------------------------------------------------


def test_settings_that_change_no_round_may_change() -> None:
    before = Settings()
    now, _ = parse_run([], ["run.rounds=20", "stop.patience=3", "run.min_replies=2"])
    refuse_changes(before, now, done=5)
    assert may_change("hardware.budget_circuits")
    assert not may_change("run.seed")


def test_others_are_refused_by_name() -> None:
    now, _ = parse_run([], ["train.steps=7"])
    with pytest.raises(UserError, match=r"train.steps = 7 in a run that began with 20; accepted"):
        refuse_changes(Settings(), now)


def test_fewer_rounds_than_are_done_are_refused() -> None:
    now, _ = parse_run([], ["run.rounds=3"])
    with pytest.raises(UserError, match=r"run.rounds = 3 in a run that has done 4; accepted: at l"):
        refuse_changes(Settings(), now, done=4)


def test_recorded_settings_are_the_ones_written(tmp_path: Path) -> None:
    settings, _ = parse_run([], ["run.seed=5", "train.steps=7"])
    write_json(tmp_path / "config.json", {"settings": settings.model_dump()})
    assert recorded_settings(tmp_path) == settings
    (tmp_path / "config.json").write_text(json.dumps({"settings": [1]}))
    with pytest.raises(UserError, match=r"no settings in .*config.json"):
        recorded_settings(tmp_path)


def test_a_run_older_than_a_setting_keeps_what_it_had(tmp_path: Path) -> None:
    """Its classes were read from one Z each, whatever is the default today."""
    tree = Settings().model_dump()
    assert tree["quantum"].pop("readout") == "linear"
    write_json(tmp_path / "config.json", {"settings": tree})
    assert recorded_settings(tmp_path).quantum.readout == "per-class"


@pytest.mark.parametrize("length", [-5, "x", None, True])
def test_one_that_knows_no_length_of_its_record_is_passed_over(tmp_path: Path, length: Any) -> None:
    grow(tmp_path, 1)
    grow(tmp_path, 2)
    folder = tmp_path / "checkpoint" / "round-002"
    state = read_json(folder / "state.json")
    write_json(folder / "state.json", {**state, "records": {**state["records"], RECORD: length}})
    digest = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
    files = {**read_json(folder / "manifest.json")["files"], "state.json": digest}
    write_json(folder / "manifest.json", {"files": files})
    assert last(tmp_path).number == 1


# --- order and releases ---------------------------------------------------------------------------


@pytest.mark.parametrize("more", [1000, 10_000, 100_003])
def test_checkpoints_are_in_the_order_of_their_rounds(tmp_path: Path, more: int) -> None:
    for number in (998, 999, more, more - 1):
        grow(tmp_path, number)
    assert last(tmp_path).number == more
    (tmp_path / "checkpoint" / f"round-{more}" / "model").write_text("torn")
    found = last(tmp_path)
    assert (found.number, found.damaged) == (max(999, more - 1), (f"round-{more}",))


def test_names_are_sorted_by_the_numbers_in_them() -> None:
    names = ["node-10.log", "node-2.log", "a-1-b-10", "a-1-b-9", "node-0.log", "7", "10", "x"]
    assert [path.name for path in sorted(map(Path, names), key=by_number)] == [
        "7",
        "10",
        "a-1-b-9",
        "a-1-b-10",
        "node-0.log",
        "node-2.log",
        "node-10.log",
        "x",
    ]


def test_releases_are_what_was_written_and_never_less(tmp_path: Path) -> None:
    note_releases(tmp_path, 5)
    assert count_releases(tmp_path, 3) == 5
    for damaged in ("", "{", '{"releases": null}', '{"releases": 2}', '{"releases": true}'):
        (tmp_path / "checkpoint" / "releases.json").write_text(damaged)
        with pytest.raises(
            UserError, match=r"releases.json' is damaged or missing; accepted: .* 3"
        ):
            count_releases(tmp_path, 3)
