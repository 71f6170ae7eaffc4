"""The audit log of whole runs: what holds, what was changed, and what a site's own list says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from bench.grid import InProcessGrid
from client_app.app import app
from client_app.site import forget
from core import UserError, flatten, parse_run, read_jsonl
from core.messages import ARRAYS, TRAIN, pack_parameters, unpack_parameters
from core.storage.chain import Chain, sha256
from llm_qfl.cli.commands import log_lines
from reporting.run_log import LogFinding, check_log, main
from server_app.app import drive
from strategies.journal import LOG, RunJournal
from strategies.logged_grid import code_digest, submission
from tests.command import llm_qfl
from tests.conftest import NO_TEACHER, SMALL

Copy = Callable[[], Path]


def go(folder: Path, *given: str, spoil: Any = lambda message, reply: reply) -> Path:
    forget()
    words = [*SMALL, *NO_TEACHER, f"run.folder={folder}", *given]
    settings, _ = parse_run([], words)
    grid = InProcessGrid(app, flatten(settings), settings.run.clients, spoil=spoil)
    drive(grid, settings, folder, str(grid.run_id))
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("logged")
    return go(place / "run", f"privacy.site_log={place / 'sites.jsonl'}")


@pytest.fixture
def copied(ended: Path, tmp_path: Path) -> Path:
    shutil.copy(ended.parent / "sites.jsonl", tmp_path / "sites.jsonl")
    return Path(shutil.copytree(ended, tmp_path / "run"))


def texts(folder: Path) -> list[bytes]:
    return (folder / LOG).read_bytes().splitlines()


def faults(found: LogFinding) -> list[str]:
    return [*([found.broken] if found.broken else []), *found.differs]


def test_a_run_writes_down_what_passes_and_what_is_decided(ended: Path) -> None:
    found = check_log(ended, ended.parent / "sites.jsonl")
    assert (faults(found), found.notes, found.ended) == ([], [], True)
    assert (found.account, found.bundle, found.code) == ("", "", code_digest())
    assert found.head == sha256(texts(ended)[-1])
    rounds = [
        ("decided", 1), ("sent", "1"), ("answered", "1"), ("aggregated", 1),
        ("decided", 2), ("sent", "2"), ("answered", "2"), ("aggregated", 2),
    ]  # fmt: skip
    assert [(one["event"], one.get("round")) for one in found.lines] == [
        ("begun", None), ("submitted", None), ("sent", ""), ("answered", ""), ("sites", None),
        ("aggregated", 0), *rounds, ("end", None),
    ]  # fmt: skip
    assert [one["clients"] for one in found.lines if one["event"] == "sent"] == [
        ["0", "1", "2"]
    ] * 3
    assert found.lines[-1]["status"] == "completed"


def test_no_content_of_a_message_is_in_the_log(ended: Path) -> None:
    for one in read_jsonl(ended / LOG):
        for digest in one.get("sites", {}).values():
            assert len(digest) == 64
            assert set(digest) <= set("0123456789abcdef")
        assert set(one) <= {
            *("before", "at", "event", "kind", "round", "sites", "errors", "sha256", "config"),
            *("account", "bundle", "code", "run", "submitted", "clients", "files", "status"),
        }


def test_a_site_is_shown_the_head_as_of_its_message(ended: Path) -> None:
    lines = texts(ended)
    sent = [json.loads(one)["before"] for one in lines if b'"event": "sent"' in one]
    shown = [one["head"] for one in read_jsonl(ended.parent / "sites.jsonl")]
    assert shown == ["", "", "", *[sent[1]] * 3, *[sent[2]] * 3]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "config.json is not the one of line 1"),
        ("summary.json", "summary.json is not the one of line 15"),
        ("model.safetensors", "model.safetensors is not the one of line 15"),
        ("checkpoint/round-002/model.safetensors", "checkpoint/round-002/model.safetensors is not"),
        ("agent.jsonl", "the decision of round 1 in agent.jsonl is not the one of line 7"),
    ],
)
def test_a_file_of_the_run_that_was_changed_is_named(copied: Path, name: str, said: str) -> None:
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data.replace(b"a", b"e", 1) if b"a" in data else b"x" + data)
    (fault,) = faults(check_log(copied))
    assert fault.startswith(said)


def test_decisions_that_were_added_or_cut_are_named(copied: Path) -> None:
    path = copied / "agent.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n")
    assert faults(check_log(copied)) == [
        "the decision of round 2 is in the log and not in agent.jsonl"
    ]
    path.write_bytes(b"\n".join([first, second, second, b""]))
    assert faults(check_log(copied)) == [
        "the decision of round 3 is in agent.jsonl and not in the log"
    ]


def test_a_line_that_was_changed_is_named_and_nothing_below_it_counts(copied: Path) -> None:
    lines = texts(copied)
    lines[3] = lines[3].replace(b'"1001"', b'"1009"')
    (copied / LOG).write_bytes(b"\n".join([*lines, b""]))
    found = check_log(copied)
    assert found.broken.startswith("line 5 does not follow from line 4")
    assert (found.differs, len(found.lines), found.ended) == ([], 4, False)


def test_lines_cut_off_the_end_are_seen_by_the_run_that_has_ended(copied: Path) -> None:
    lines = texts(copied)
    (copied / LOG).write_bytes(b"\n".join([*lines[:-1], b""]))
    assert faults(check_log(copied)) == [
        "the run has ended and its log has not: lines were cut off"
    ]


def test_a_log_made_anew_holds_and_a_site_s_list_gives_it_away(copied: Path) -> None:
    """The server may write another story from its first line on: its chain holds."""
    values = [{k: v for k, v in json.loads(one).items() if k != "before"} for one in texts(copied)]
    values[1]["account"] = "somebody else"
    (copied / LOG).unlink()
    Chain(copied / LOG).append(*values)
    assert faults(check_log(copied)) == []
    said = faults(check_log(copied, copied.parent / "sites.jsonl"))
    assert len(said) == 6
    assert set(said) == {
        f"with train of round {n} the site was shown a log that this one does not go on from"
        for n in (1, 2)
    }


def test_an_answer_that_was_exchanged_on_its_way_is_found_by_the_site(tmp_path: Path) -> None:
    def spoil(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == TRAIN and message.metadata.group_id == "2":
            arrays = unpack_parameters(reply.content.array_records[ARRAYS])
            moved = {name: (array + np.float32(0.1)) for name, array in arrays.items()}
            reply.content[ARRAYS] = pack_parameters(moved)
        return reply

    folder = go(tmp_path / "run", f"privacy.site_log={tmp_path}/sites.jsonl", spoil=spoil)
    said = faults(check_log(folder, tmp_path / "sites.jsonl"))
    other = "the site answered train of round 2, which the log does not hold as it was sent"
    assert said[:3] == [other] * 3
    (line,) = {one.split(" holds ")[0] for one in said[3:]}
    assert (
        said[3:] == [f"{line} holds an answer to train of round 2 that the site did not list"] * 3
    )


def test_an_answer_that_a_site_never_gave_is_found_by_its_list(copied: Path) -> None:
    """The server made it up, or the site lost a part of its list; errors may be the network's."""
    path = copied.parent / "sites.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(lines[:-1]) + b"\n")
    (said,) = faults(check_log(copied, path))
    assert said == "line 13 holds an answer to train of round 2 that the site did not list"
    path.write_bytes(b"\n".join(lines[3:]) + b"\n")  # a list that began with round 1
    assert faults(check_log(copied, path)) == []


def test_a_list_of_another_run_and_none_at_all(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"run": "99"}\n')
    (said,) = faults(check_log(copied, tmp_path / "other.jsonl"))
    assert said.endswith("holds no message of this run")
    with pytest.raises(UserError, match=r"accepted: a site's list \(privacy.site_log\)"):
        check_log(copied, tmp_path / "absent.jsonl")
    (copied / LOG).unlink()
    with pytest.raises(UserError, match="the log of a run of this version or a later one"):
        check_log(copied)


def test_errors_are_logged_with_their_code(tmp_path: Path) -> None:
    from flwr.app import Error

    def spoil(message: Message, reply: Message) -> Message:
        failing = message.metadata.group_id == "1" and message.metadata.dst_node_id == 1001
        return Message(Error(2, "it broke"), reply_to=message) if failing else reply

    found = check_log(go(tmp_path / "run", spoil=spoil))
    assert faults(found) == []
    (first, *rest) = [one for one in found.lines if one["event"] == "answered" and one["round"]]
    assert first["errors"] == {"1001": 2}
    assert "it broke" not in (tmp_path / "run" / LOG).read_text()
    assert all("errors" not in one for one in rest)


class Killed(BaseException):
    """The process ends here, without a word."""


def test_a_run_that_was_killed_and_goes_on_says_so_and_nothing_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    plain = RunJournal.checkpoint

    def killed(self: RunJournal, number: int, *given: Any) -> None:
        if number == 2:
            raise Killed
        plain(self, number, *given)

    with monkeypatch.context() as patched:
        patched.setattr(RunJournal, "checkpoint", killed)
        with pytest.raises(Killed):
            go(folder)
    before = texts(folder)
    found = check_log(folder)
    assert found.notes == ["no end is logged: the run goes on, was killed, or lines were cut off"]
    assert faults(found) == []
    with (folder / LOG).open("ab") as file:
        file.write(b'{"before": "half of a')
    go(folder, "run.resume=true")
    after = texts(folder)
    assert after[: len(before)] == before
    found = check_log(folder)
    assert faults(found) == []
    number = len(before) + 1
    assert found.notes == [
        f"line {number} was left half written by a process that was killed",
        f"resumed after round 1 (line {number + 1})",
    ]
    decided = [one["round"] for one in found.lines if one["event"] == "decided"]
    assert decided == [1, 2, 2]


def test_the_command_prints_the_table_and_its_exit_code(copied: Path) -> None:
    done = llm_qfl(copied.parent, "audit", "run", "--log", "--site", "sites.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("the log holds\n")
    for text in ("train answered, round 2", "0, 1, 2", f"head: {sha256(texts(copied)[-1])}"):
        assert text in done.stdout
    assert done.stdout.splitlines() == log_lines(
        vars(check_log(copied, copied.parent / "sites.jsonl"))
    )
    lines = texts(copied)
    (copied / LOG).write_bytes(b"\n".join([*lines[:4], *lines[5:], b""]))
    done = llm_qfl(copied.parent, "audit", "run", "--log", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["broken"].startswith("line 5 does not follow from line 4")
    (copied / LOG).unlink()
    done = llm_qfl(copied.parent, "audit", "run", "--log")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_lines_that_are_no_log_are_a_mistake_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Chain(tmp_path / LOG).append({"event": "sent", "sites": 3})
    assert main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([]) == 2


def test_decisions_that_a_resumed_run_has_not_made_again_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "agent.jsonl").write_text("first\n")
    config = sha256(b"{}")
    Chain(tmp_path / LOG).append(
        {"event": "begun", "config": config},
        {"event": "decided", "round": 1, "sha256": sha256(b"first")},
        {"event": "decided", "round": 2, "sha256": sha256(b"second")},
        {"event": "resumed", "round": 1, "config": config},
    )
    assert faults(check_log(tmp_path)) == []


def test_a_run_that_began_without_a_log_goes_on_with_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "agent.jsonl").write_text("first\nsecond\nthird\n")
    Chain(tmp_path / LOG).append(
        {"event": "resumed", "round": 1, "config": sha256(b"{}")},
        {"event": "decided", "round": 2, "sha256": sha256(b"second")},
    )
    found = check_log(tmp_path)
    assert faults(found) == ["the decision of round 3 is in agent.jsonl and not in the log"]
    assert "the log begins after round 1: before, there was none" in found.notes


@pytest.mark.parametrize(
    ("name", "account", "shown"),
    [("anna", "17", "anna"), ("", "17", "17"), ("<name:none>", "<id:none>", ""), ("", "", "")],
)
def test_who_submitted_is_what_flower_knows(name: str, account: str, shown: str) -> None:
    facts = {"account_name": name, "flwr_aid": account, "fab_hash": "ab", "pending_at": "now"}
    line = submission(SimpleNamespace(run=SimpleNamespace(**facts)), "3")  # type: ignore[arg-type]
    assert (line["account"], line["bundle"], line["run"]) == (shown, "ab", "3")
