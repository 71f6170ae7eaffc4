"""Which nodes a SuperLink admits: keys are registered, revoked for good, and replaced."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

import llm_qfl.cli.deploy.commands
from core import UserError
from llm_qfl.cli.children import LaunchError
from llm_qfl.cli.deploy.admission import admit, revoke_key
from llm_qfl.cli.deploy.commands import revoke
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.keys import make_node_key, public_pem
from tests.command import llm_qfl as command


class Registry:
    """Flower's record of nodes, key to id; keys in `refused` are refused."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.calls = 0

    def nodes(self) -> dict[bytes, int]:
        return dict(self.known)

    def register(self, key: bytes, name: str) -> None:
        self._call(key)
        self.known[key] = 100 + self.calls

    def unregister(self, node_id: int) -> None:
        (key,) = [key for key, number in self.known.items() if number == node_id]
        self._call(key)
        del self.known[key]

    def _call(self, key: bytes) -> None:
        self.calls += 1
        if key in self.refused:
            raise ConnectionError("No room\nfor it")


class Place:
    """A deployment of two nodes, and the SuperLink's record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "fed"
        make_deployment(self.folder, Options(2))
        self.superlink = self.folder / "superlink"
        self.registry = Registry()

    def admit(self) -> int:
        return admit(self.registry, self.superlink)  # type: ignore[arg-type]

    def key(self, name: str) -> bytes:
        return public_pem(self.superlink / "nodes" / f"{name}.pub")

    def add(self, name: str) -> Path:
        """Put another site's key to the admitted ones."""
        public = self.superlink / "nodes" / f"{name}.pub"
        make_node_key(self.folder / f"{name}.key", public)
        return public


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_key_is_registered_once(place: Place) -> None:
    assert place.admit() == 2
    assert set(place.registry.known) == {place.key("node-0"), place.key("node-1")}
    assert place.admit() == 2
    assert place.registry.calls == 2


def test_a_revoked_key_is_out_and_the_new_one_in(place: Place) -> None:
    place.admit()
    old, other = place.key("node-1"), place.key("node-0")
    private = place.folder / "node-1" / "node.key"
    was = private.read_bytes()
    revoked = revoke_key(place.superlink, "node-1", place.folder / "node-1")
    assert public_pem(revoked) == old
    assert private.read_bytes() != was
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert place.admit() == 2
    assert set(place.registry.known) == {other, place.key("node-1")}
    calls = place.registry.calls
    assert place.admit() == 2  # nothing is thrown out twice
    assert place.registry.calls == calls
    left = sorted(path.name for path in (place.superlink / "nodes").iterdir())
    assert left == ["node-0.pub", "node-1.pub"]


@pytest.mark.parametrize("new_database", [False, True])
def test_without_the_nodes_folder_there_is_no_new_key(place: Place, new_database: bool) -> None:
    place.admit()
    revoke_key(place.superlink, "node-0", None)
    if new_database:
        place.registry.known.clear()
    assert place.admit() == 1
    assert set(place.registry.known) == {place.key("node-1")}


def test_a_revoked_key_that_still_lies_there_is_not_admitted(place: Place) -> None:
    """Left by a copy, or by an end between the two steps of a revocation."""
    revoked = revoke_key(place.superlink, "node-0", None)
    shutil.copy(revoked, place.superlink / "nodes" / "node-0.pub")
    assert place.admit() == 1
    assert set(place.registry.known) == {place.key("node-1")}


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


def test_one_key_that_fails_keeps_no_other(place: Place) -> None:
    """One is refused, one invalid, one cannot be thrown out: all others are dealt with."""
    place.add("node-2")
    place.add("node-3")
    place.admit()
    first = revoke_key(place.superlink, "node-0", None)
    second = revoke_key(place.superlink, "node-1", None)
    place.registry.refused |= {public_pem(first), public_pem(place.add("node-4"))}
    (place.superlink / "nodes" / "node-5.pub").write_text("ecdsa-sha2-nistp384 bad")
    place.add("node-6")
    with pytest.raises(LaunchError, match=r"was not unregistered: No room for it"):
        place.admit()
    admitted = set(place.registry.known)
    assert public_pem(second) not in admitted
    assert {place.key("node-2"), place.key("node-3"), place.key("node-6")} <= admitted
    place.registry.refused.clear()
    with pytest.raises(LaunchError, match=r"node-5\.pub is no key of a node: "):
        place.admit()
    assert public_pem(first) not in set(place.registry.known)


def test_the_command_says_what_is_to_be_done(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs from this folder: the next start of the SuperLink throws the key out."""
    assert revoke(place.folder, "node-0") == 0
    printed = capsys.readouterr().out
    assert "revoked node-0" in printed
    assert "the next SuperLink that starts here throws it out" in printed
    assert "give its node.key" in printed
    assert revoke(place.superlink, "node-1") == 0
    assert "give its node.key" not in capsys.readouterr().out


@pytest.mark.parametrize("named", ["fed", "fed/superlink"])
def test_a_superlink_that_runs_throws_it_out_at_once(
    place: Place, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.admit()
    old = place.key("node-0")
    commands = llm_qfl.cli.deploy.commands
    monkeypatch.setattr(commands, "running", lambda *_: {"port": 9})
    monkeypatch.setattr("llm_qfl.cli.deploy.admission.register", lambda *_: place.admit())
    monkeypatch.setattr(commands, "answers", lambda *_: True)
    assert revoke(place.folder.parent / named, "node-0") == 0
    assert f"the SuperLink admits {2 if named == 'fed' else 1} node" in capsys.readouterr().out
    assert old not in set(place.registry.known)
    place.registry.refused.add(place.key("node-1"))
    with pytest.raises(LaunchError, match="was not unregistered: No room for it"):
        revoke(place.folder.parent / named, "node-1")


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    Place(tmp_path)
    refused = command(tmp_path, "deploy", "revoke", "fed", "node-5")
    assert refused.returncode == 2
    assert "no node 'node-5' is admitted; accepted: node-0, node-1" in refused.stderr
    assert "Traceback" not in refused.stderr
    refused = command(tmp_path, "deploy", "revoke", ".", "node-0")
    assert refused.returncode == 2
    assert "lacks superlink.toml" in refused.stderr
