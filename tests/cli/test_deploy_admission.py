"""Which nodes a SuperLink admits: keys are registered, thrown out for good, and replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import llm_qfl.cli.deploy.admission
from core import UserError, read_json
from llm_qfl.cli.deploy.admission import (
    IDS,
    OUT,
    admit,
    fingerprint,
    forget_numbers,
    is_out,
    revoke_key,
)
from llm_qfl.cli.deploy.commands import revoke
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.parts import Part
from llm_qfl.cli.deploy.serve import Supervisor
from llm_qfl.cli.flower import Flwr
from llm_qfl.cli.processes import Interrupted, wait_for
from llm_qfl.cli.superlink import LaunchError
from tests.command import llm_qfl as command

# Answers in the words of Flower 1.41's `flwr supernode register` and `unregister`, from a file.
FLWR = """
import json, pathlib, sys
book = pathlib.Path(sys.argv[0]).with_name("book.json")
kept = json.loads(book.read_text()) if book.exists() else {"next": 100, "keys": {}, "gone": []}
step, what, busy = sys.argv[2], sys.argv[3], book.with_name("busy").exists()
if step == "register":
    key = pathlib.Path(what).read_text().split()[1]
    if key in kept["keys"]:
        told = {"success": False, "error-message": "[code: 23] Public key already in use."}
    else:
        kept["keys"][key] = kept["next"]
        told = {"success": True, "node-id": kept["next"]}
        kept["next"] += 1
    if pathlib.Path(what).stem == "node-9" and busy:
        told = {"success": False, "error-message": "No room for it"}
        kept["keys"].pop(key, None)
elif busy:
    told = {"success": False, "error-message": "No time for it"}
elif int(what) in kept["keys"].values() and int(what) not in kept["gone"]:
    kept["gone"].append(int(what))
    told = {"success": True, "node-id": int(what)}
else:
    told = {"success": False, "error-message": "[code: 24] Node ID not found for account."}
print("Using SuperLink: llm-qfl\\n" + json.dumps(told))
draft = book.with_name("draft")
draft.write_text(json.dumps(kept))
draft.replace(book)
"""


class Place:
    """A deployment of two nodes, and a stand-in for Flower's command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "fed"
        make_deployment(self.folder, Options(2))
        self.superlink = self.folder / "superlink"
        home = folder / "home"
        (home / "empty").mkdir(parents=True)
        program = home / "flwr"
        program.write_text(f"#!{sys.executable}\n{FLWR}", encoding="utf-8")
        program.chmod(0o755)
        self.book, self.busy = home / "book.json", home / "busy"
        self.flwr = Flwr(str(program), home, os.environ, home / "log")

    def admitted(self) -> set[str]:
        """Return the public keys that the database lets in."""
        kept = json.loads(self.book.read_text())
        return {key for key, number in kept["keys"].items() if number not in kept["gone"]}

    def key(self, name: str) -> str:
        return (self.superlink / "nodes" / f"{name}.pub").read_text().split()[1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(
        "llm_qfl.cli.deploy.admission.os.cpu_count", lambda: 1
    )  # one book, one writer
    return Place(tmp_path)


def test_numbers_are_noted_once(place: Place) -> None:
    assert admit(place.flwr, place.superlink) == 2
    ids = read_json(place.superlink / IDS)
    assert sorted(ids.values()) == ["100", "101"]
    assert admit(place.flwr, place.superlink) == 2
    assert read_json(place.superlink / IDS) == ids


def test_a_revoked_key_is_out_and_the_new_one_in(place: Place) -> None:
    admit(place.flwr, place.superlink)
    old, other = place.key("node-1"), place.key("node-0")
    private = place.folder / "node-1" / "node.key"
    was = private.read_bytes()
    kept = revoke_key(place.superlink, "node-1", place.folder / "node-1")
    assert kept.read_text().split()[1] == old
    assert private.read_bytes() != was
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert admit(place.flwr, place.superlink) == 2
    assert place.admitted() == {other, place.key("node-1")}
    assert read_json(place.superlink / IDS)[fingerprint(kept)] == OUT
    admit(place.flwr, place.superlink)  # nothing is thrown out twice
    assert place.admitted() == {other, place.key("node-1")}
    left = sorted(path.name for path in (place.superlink / "nodes").iterdir())
    assert left == ["node-0.pub", "node-1.pub"]


def test_without_the_nodes_folder_there_is_no_new_key(place: Place) -> None:
    admit(place.flwr, place.superlink)
    revoke_key(place.superlink, "node-0", None)
    assert admit(place.flwr, place.superlink) == 1
    assert place.admitted() == {place.key("node-1")}


def test_a_key_is_out_of_a_new_database_too(place: Place) -> None:
    admit(place.flwr, place.superlink)
    revoke_key(place.superlink, "node-0", None)
    (place.superlink / IDS).unlink()
    place.book.unlink()
    admit(place.flwr, place.superlink)
    assert place.admitted() == {place.key("node-1")}


def test_where_its_number_is_unknown_that_is_said(place: Place) -> None:
    admit(place.flwr, place.superlink)
    (place.superlink / IDS).unlink()  # as an earlier version left it
    kept = revoke_key(place.superlink, "node-0", None)
    with pytest.raises(
        LaunchError, match=rf"{re.escape(str(kept))} was not thrown out: .*state.db"
    ):
        admit(place.flwr, place.superlink)


@pytest.mark.parametrize("name", ["node-7", "../ca", ""])
def test_who_is_not_admitted_cannot_be_revoked(place: Place, name: str) -> None:
    with pytest.raises(UserError, match="accepted: node-0, node-1"):
        revoke_key(place.superlink, name, None)
    assert not (place.superlink / "revoked").exists()


def test_a_new_key_that_cannot_be_made_leaves_the_old_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm_qfl.cli.deploy.admission.make_node_key", fails)
    old = place.key("node-0")
    with pytest.raises(OSError, match="No space left"):
        revoke_key(place.superlink, "node-0", place.folder / "node-0")
    assert place.key("node-0") == old


def test_a_node_that_is_gone_already_is_out(place: Place) -> None:
    """Ended after Flower forgot it and before that was noted, or forgotten by hand."""
    admit(place.flwr, place.superlink)
    noted = (place.superlink / IDS).read_text()
    kept = revoke_key(place.superlink, "node-0", None)
    admit(place.flwr, place.superlink)
    (place.superlink / IDS).write_text(noted)
    assert not is_out(place.superlink, kept)
    admit(place.flwr, place.superlink)
    assert is_out(place.superlink, kept)


def test_a_revoked_key_that_still_lies_there_is_not_admitted(place: Place) -> None:
    kept = revoke_key(place.superlink, "node-0", None)
    shutil.copy(kept, place.superlink / "nodes" / "node-0.pub")
    assert admit(place.flwr, place.superlink) == 1
    place.book.unlink()  # a new database
    assert admit(place.flwr, place.superlink) == 1
    assert place.admitted() == {place.key("node-1")}


def test_a_refusal_loses_no_number(place: Place) -> None:
    place.busy.touch()
    shutil.copy(place.superlink / "nodes" / "node-0.pub", place.superlink / "nodes" / "node-9.pub")
    (place.superlink / "nodes" / "node-9.pub").write_text("ecdsa-sha2-nistp384 other")
    with pytest.raises(LaunchError, match=r"node-9\.pub was not registered: No room for it"):
        admit(place.flwr, place.superlink)
    assert len(read_json(place.superlink / IDS)) == 2


def test_one_key_that_fails_keeps_no_other(place: Place) -> None:
    """The first cannot be thrown out: the second is, and the last is let in."""
    nodes = place.superlink / "nodes"
    for name in ("node-2", "node-3"):
        (nodes / f"{name}.pub").write_text(f"ecdsa-sha2-nistp384 {name}")
    admit(place.flwr, place.superlink)
    ids = read_json(place.superlink / IDS)
    first = revoke_key(place.superlink, "node-0", None)
    ids.pop(fingerprint(first))
    (place.superlink / IDS).write_text(json.dumps(ids))
    second = revoke_key(place.superlink, "node-1", None)
    (nodes / "node-4.pub").write_text("ecdsa-sha2-nistp384 last")
    with pytest.raises(LaunchError, match="number of that node was not noted"):
        admit(place.flwr, place.superlink)
    assert is_out(place.superlink, second)
    assert {"node-2", "node-3", "last"} <= place.admitted()


def test_a_bad_key_keeps_none_after_it_out(place: Place) -> None:
    nodes = place.superlink / "nodes"
    nodes.joinpath("node-1.pub").rename(nodes / "node-9-and-a-half.pub")
    nodes.joinpath("node-9.pub").write_text("ecdsa-sha2-nistp384 bad")
    place.busy.touch()
    with pytest.raises(LaunchError, match="No room for it"):
        admit(place.flwr, place.superlink)
    assert len(place.admitted()) == 2


def test_a_number_that_is_learned_late_is_noted_before_it_is_used(place: Place) -> None:
    kept = revoke_key(place.superlink, "node-0", None)
    place.busy.touch()
    with pytest.raises(LaunchError, match="was not thrown out: No time for it"):
        admit(place.flwr, place.superlink)
    place.busy.unlink()
    admit(place.flwr, place.superlink)
    assert is_out(place.superlink, kept)


def test_what_was_registered_before_an_interrupt_is_noted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = llm_qfl.cli.deploy.admission.output, []

    def interrupted(command: Any, seconds: float) -> str:
        calls.append(seconds)
        if len(calls) == 1:
            raise Interrupted
        return real(command, seconds)

    monkeypatch.setattr(llm_qfl.cli.deploy.admission, "output", interrupted)
    with pytest.raises(Interrupted):
        admit(place.flwr, place.superlink)
    assert list(read_json(place.superlink / IDS).values()) == ["100"]


def test_numbers_of_a_database_that_is_gone_are_forgotten(place: Place) -> None:
    """Else a later revocation would look for them and take what it misses for thrown out."""
    (place.superlink / "state.db").touch()
    admit(place.flwr, place.superlink)
    kept = revoke_key(place.superlink, "node-0", None)
    admit(place.flwr, place.superlink)
    forget_numbers(place.superlink)
    assert len(read_json(place.superlink / IDS)) == 2
    (place.superlink / "state.db").unlink()
    forget_numbers(place.superlink)
    assert read_json(place.superlink / IDS) == {fingerprint(kept): OUT}


def test_a_key_that_comes_while_others_are_admitted_is_not_missed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part("superlink", place.superlink, ["-"], dict(os.environ), Path(), 9, lambda _: True)
    supervisor = Supervisor(place.folder, [part], "tag", place.flwr.plan, lambda _: None)
    late = place.superlink / "nodes" / "node-5.pub"

    def meanwhile(flwr: Flwr, superlink: Path) -> int:
        count = admit(flwr, superlink)
        late.write_text("ecdsa-sha2-nistp384 late")
        return count

    monkeypatch.setattr("llm_qfl.cli.deploy.serve.admit", meanwhile)
    supervisor.register(part)
    assert "late" not in place.admitted()
    supervisor._look_at_keys(part, 0.0)
    assert "late" in place.admitted()


def test_the_command_says_what_is_to_be_done(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs from this folder: the next start of the SuperLink throws the key out."""
    assert revoke(place.folder, "node-0") == 0
    said = capsys.readouterr().out
    assert "revoked node-0" in said
    assert "the next SuperLink that starts here throws it out" in said
    assert "give it node.key" in said
    assert revoke(place.superlink, "node-1") == 0
    assert "give it node.key" not in capsys.readouterr().out


@pytest.mark.parametrize("named", ["fed", "fed/superlink"])
@pytest.mark.parametrize("where", ["fed", "fed/superlink"])
def test_the_supervisor_that_runs_throws_it_out(
    place: Place,
    where: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`up` keeps its state in the whole folder, `deploy superlink` in its own."""
    part = Part("superlink", place.superlink, ["-"], dict(os.environ), Path(), 9, lambda _: True)
    monkeypatch.setattr(Part, "dead", lambda _: False)
    supervisor = Supervisor(
        place.folder.parent / where, [part], "tag", place.flwr.plan, lambda _: None
    )
    supervisor.register(part)
    supervisor._write(ready=True)
    old = place.key("node-0")
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            supervisor.look(time.monotonic())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert revoke(place.folder.parent / named, "node-0") == 0
        assert "has thrown it out" in capsys.readouterr().out
        if named == "fed":  # with a new key
            assert wait_for(lambda: place.key("node-0") in place.admitted(), 10.0)
        assert old not in place.admitted()
    finally:
        ended.set()
        thread.join()


def test_what_is_not_thrown_out_in_time_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llm_qfl.cli.deploy.commands.OUT_SECONDS", 0.2)
    Supervisor(place.folder, [], "tag", "flwr", lambda _: None)._write(ready=True)
    assert revoke(place.folder, "node-0") == 1
    assert "has not thrown it out within" in capsys.readouterr().err


def test_a_supervisor_tells_a_refused_key_once_and_goes_on(place: Place) -> None:
    said: list[str] = []
    part = Part("superlink", place.superlink, ["-"], dict(os.environ), Path(), 9, lambda _: True)
    supervisor = Supervisor(place.folder, [part], "tag", place.flwr.plan, said.append)
    supervisor.register(part)
    place.busy.touch()
    bad = place.superlink / "nodes" / "node-9.pub"
    bad.write_text("ecdsa-sha2-nistp384 other")
    for now in (100.0, 101.0, 200.0, 300.0):
        supervisor._look_at_keys(part, now)
    assert [line for line in said if "No room for it" in line] == said[1:]
    assert len(said) == 2
    place.busy.unlink()  # no file has changed: it is tried again all the same
    supervisor._look_at_keys(part, 400.0)
    assert "3 nodes registered" in said[-1]


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    Place(tmp_path)
    refused = command(tmp_path, "deploy", "revoke", "fed", "node-5")
    assert refused.returncode == 2
    assert "no node 'node-5' is admitted; accepted: node-0, node-1" in refused.stderr
    assert "Traceback" not in refused.stderr
    refused = command(tmp_path, "deploy", "revoke", ".", "node-0")
    assert refused.returncode == 2
    assert "lacks superlink.toml" in refused.stderr
