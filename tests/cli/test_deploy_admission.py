"""Which nodes a SuperLink admits: keys are registered, thrown out for good, and replaced."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from cli.deploy import revoke
from cli.deploy_admission import IDS, OUT, admit, fingerprint, revoke_key
from cli.deploy_folder import Options, make_deployment
from cli.flower import Flwr
from cli.superlink import LaunchError
from federation import UserError, read_json
from tests.command import llm_qfl

# Answers as Flower 1.41's `flwr supernode register` and `unregister` did, from a file.
FLWR = """
import json, pathlib, sys
book = pathlib.Path(sys.argv[0]).with_name("book.json")
kept = json.loads(book.read_text()) if book.exists() else {"next": 100, "keys": {}, "gone": []}
step, what = sys.argv[2], sys.argv[3]
if step == "register":
    key = pathlib.Path(what).read_text().split()[1]
    if key in kept["keys"]:
        told = {"success": False, "error-message": "[code: 23] Public key already in use."}
    else:
        kept["keys"][key] = kept["next"]
        told = {"success": True, "node-id": kept["next"]}
        kept["next"] += 1
elif int(what) in kept["keys"].values() and int(what) not in kept["gone"]:
    kept["gone"].append(int(what))
    told = {"success": True, "node-id": int(what)}
else:
    told = {"success": False, "error-message": "Node not found or you are not its owner."}
print("Using SuperLink: llm-qfl\\n" + json.dumps(told))
book.write_text(json.dumps(kept))
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
        self.book = home / "book.json"
        self.flwr = Flwr(str(program), home, os.environ, home / "log")

    def admitted(self) -> set[str]:
        """Return the public keys that the database lets in."""
        kept = json.loads(self.book.read_text())
        return {key for key, number in kept["keys"].items() if number not in kept["gone"]}

    def key(self, name: str) -> str:
        return (self.superlink / "nodes" / f"{name}.pub").read_text().split()[1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("cli.deploy_admission.os.cpu_count", lambda: 1)  # one book, one writer
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

    monkeypatch.setattr("cli.deploy_admission.make_node_key", fails)
    old = place.key("node-0")
    with pytest.raises(OSError, match="No space left"):
        revoke_key(place.superlink, "node-0", place.folder / "node-0")
    assert place.key("node-0") == old


def test_the_command_says_what_is_to_be_done(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs from this folder: the next start of the SuperLink throws the key out."""
    assert revoke(place.folder, "node-0") == 0
    said = capsys.readouterr().out
    assert "revoked node-0" in said
    assert "needs its nodes/ and revoked/ anew" in said
    assert "give it node.key" in said
    assert revoke(place.superlink, "node-1") == 0
    assert "give it node.key" not in capsys.readouterr().out


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    Place(tmp_path)
    refused = llm_qfl(tmp_path, "deploy", "revoke", "fed", "node-5")
    assert refused.returncode == 2
    assert "no node 'node-5' is admitted; accepted: node-0, node-1" in refused.stderr
    assert "Traceback" not in refused.stderr
    refused = llm_qfl(tmp_path, "deploy", "revoke", ".", "node-0")
    assert refused.returncode == 2
    assert "lacks superlink.toml" in refused.stderr
