"""Sites know each other by keys that the maker of the folder distributed, not the server."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from core import parse_settings
from core.secagg import identity_of, known_peers
from llm_qfl.cli.deploy.commands import init, revoke
from llm_qfl.cli.deploy.folder import Options, make_deployment
from llm_qfl.cli.deploy.parts import NODE, command


def made(folder: Path, *node_sets: str, nodes: int = 3) -> Path:
    sets = ("data.source=dna-demo", *node_sets)
    assert make_deployment(folder, Options(nodes, ["127.0.0.1"], 8123, sets))
    return folder


def own_settings(node: Path) -> dict[str, object]:
    """Return the flat settings that Flower gets of a node."""
    command(NODE, node)
    tables = tomllib.loads((node / "home" / "node.toml").read_text())
    return {
        f"{section}.{key}" if isinstance(table, dict) else section: value
        for section, table in tables.items()
        for key, value in (table.items() if isinstance(table, dict) else {"": table}.items())
    }


def test_every_node_gets_every_sites_public_key_and_only_its_own_private_one(
    tmp_path: Path,
) -> None:
    folder = made(tmp_path / "fed")
    public = {path.name: path.read_bytes() for path in (folder / "superlink/nodes").iterdir()}
    assert sorted(public) == ["node-0.pub", "node-1.pub", "node-2.pub"]
    for node in ("node-0", "node-1", "node-2"):
        there = folder / node / "peers"
        assert {path.name: path.read_bytes() for path in there.iterdir()} == public
        assert there.stat().st_mode & 0o777 == 0o700
        assert len(list((folder / node).rglob("node.key"))) == 1


def test_a_node_signs_with_its_own_key_and_knows_the_others(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    own = {node: own_settings(folder / f"node-{node}") for node in range(3)}
    settings = [
        parse_settings({}, {k: str(v) for k, v in own[node].items() if k.startswith("privacy.")})
        for node in range(3)
    ]
    peers = [known_peers(one) for one in settings]
    assert peers[0] == peers[1] == peers[2]
    assert peers[0] == {n: identity_of(settings[n], "run", n).public for n in range(3)}


def test_what_a_site_has_set_itself_counts(tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    folder = made(tmp_path / "fed", f"1:privacy.peers={elsewhere}")
    assert own_settings(folder / "node-1")["privacy.peers"] == elsewhere
    assert own_settings(folder / "node-2")["privacy.peers"] == str(folder / "node-2" / "peers")


def test_relative_paths_are_those_of_the_nodes_folder(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    file = folder / "node-1" / "node.toml"
    file.write_text(file.read_text() + '\n[privacy]\nsite_key = "mine.key"\n')
    assert own_settings(folder / "node-1")["privacy.site_key"] == str(folder / "node-1/mine.key")


def test_a_folder_that_an_earlier_version_made_starts_without_peers(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed", nodes=2)
    assert not (folder / "node-0" / "peers").exists()  # two sites cannot aggregate securely
    own = own_settings(folder / "node-0")
    assert own["privacy.site_key"] == str(folder / "node-0" / "node.key")
    assert "privacy.peers" not in own


def test_so_many_nodes_that_keys_are_distributed_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llm_qfl.cli.deploy.peers.MOST", 3)
    monkeypatch.setattr("llm_qfl.cli.deploy.folder.MOST", 3)
    assert init(tmp_path / "fed", nodes=4) == 0
    assert "copy superlink/nodes/ there" in capsys.readouterr().out
    assert not (tmp_path / "fed" / "node-0" / "peers").exists()


def test_a_revoked_nodes_new_key_comes_to_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path / "fed")
    before = (folder / "node-0/peers/node-1.pub").read_bytes()
    (folder / "node-0/peers/notes.txt").write_text("mine")
    assert revoke(folder, "node-1") == 0
    printed = capsys.readouterr().out
    assert "peers/ is up to date in node-0, node-1, node-2; sites elsewhere need" in printed
    new = (folder / "superlink/nodes/node-1.pub").read_bytes()
    assert new != before
    for node in range(3):
        assert (folder / f"node-{node}/peers/node-1.pub").read_bytes() == new
    assert (folder / "node-0/peers/notes.txt").exists()


def test_a_revoked_node_that_is_elsewhere_is_nobodys_peer_any_more(tmp_path: Path) -> None:
    folder = made(tmp_path / "fed")
    (folder / "node-1").rename(tmp_path / "elsewhere")
    assert revoke(folder, "node-1") == 0
    for node in ("node-0", "node-2"):
        there = sorted(path.name for path in (folder / node / "peers").iterdir())
        assert there == ["node-0.pub", "node-2.pub"]


def test_on_a_superlink_alone_it_is_said_what_to_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path / "fed")
    assert revoke(folder / "superlink", "node-1") == 0
    assert "sites with peers/ of their own need" in capsys.readouterr().out
