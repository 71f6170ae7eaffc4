"""Who a site is: its own key and the others', from files of its machine, or from its store."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from core import Settings, SettingsError, parse_settings
from core.secagg import identity_of, known_peers, new_identity
from core.secagg.identity import verify


def settings_with(tmp_path: Path, **own: str) -> Settings:
    node = {f"privacy.{key}": value for key, value in own.items()}
    return parse_settings({}, {**node, "llm.store": str(tmp_path / "store")})


def private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    openssh = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    return key.private_bytes(*openssh, serialization.NoEncryption())


def public_line(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    formats = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*formats) + b"\n"


def test_what_an_identity_signs_is_its_own_and_of_these_very_bytes() -> None:
    one, other = new_identity(), new_identity()
    signature = one.sign(b"data")
    assert (len(one.public), len(signature)) == (49, 96)
    assert verify(one.public, signature, b"data")
    assert not verify(one.public, signature, b"date")
    assert not verify(other.public, signature, b"data")
    assert not verify(one.public, bytes(96), b"data")
    assert not verify(b"\x09" + one.public[1:], signature, b"data")


def test_without_a_key_the_store_makes_one_that_outlives_a_restart(tmp_path: Path) -> None:
    here = settings_with(tmp_path)
    first = identity_of(here, "run", 3)
    assert identity_of(here, "run", 3).public == first.public
    assert verify(first.public, identity_of(here, "run", 3).sign(b"x"), b"x")
    others = {
        identity_of(here, "run", 4).public,
        identity_of(here, "another", 3).public,
        identity_of(settings_with(tmp_path / "elsewhere"), "run", 3).public,
    }
    assert len({*others, first.public}) == 4


def test_a_store_that_cannot_be_written_leaves_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.secagg.identity.open_store", full)
    here = settings_with(tmp_path)
    assert identity_of(here, "run", 3).public != identity_of(here, "run", 3).public


def test_the_nodes_own_key_is_taken_and_known_to_its_peers(tmp_path: Path) -> None:
    keys = {client: ec.generate_private_key(ec.SECP384R1()) for client in (0, 2, 10)}
    (tmp_path / "peers").mkdir()
    for client, key in keys.items():
        (tmp_path / "peers" / f"node-{client}.pub").write_bytes(public_line(key))
    (tmp_path / "peers" / "README").write_text("something else")
    (tmp_path / "node.key").write_bytes(private_pem(keys[2]))
    here = settings_with(
        tmp_path, site_key=str(tmp_path / "node.key"), peers=str(tmp_path / "peers")
    )
    peers = known_peers(here)
    assert peers is not None
    assert list(peers) == [0, 2, 10]
    assert peers[2] == identity_of(here, "run", 2).public
    assert verify(peers[2], identity_of(here, "run", 2).sign(b"x"), b"x")


def test_without_a_folder_of_peers_nobody_is_known(tmp_path: Path) -> None:
    assert known_peers(settings_with(tmp_path)) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        (b"no key", "is no such key"),
        (private_pem(ec.generate_private_key(ec.SECP256R1())), "is no such key"),
        (private_pem(ed25519.Ed25519PrivateKey.generate()), "is no such key"),
    ],
)
def test_a_file_that_is_no_key_of_a_site_is_refused(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "node.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"privacy\.site_key = '.*node\.key' {why}; accepted"):
        identity_of(settings_with(tmp_path, site_key=str(path)), "run", 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("", b"", r"privacy\.peers = '.*' cannot be read \(No such file or directory\); accepted"),
        ("other.pub", b"", r"privacy\.peers = '.*peers' holds none; accepted: a folder with every"),
        ("node-1.pub", b"x", r"privacy\.peers: '.*node-1\.pub' is no such key; accepted: public"),
        (
            "node-1.pub",
            public_line(ec.generate_private_key(ec.SECP256R1())),
            r"privacy\.peers: '.*node-1\.pub' is no such key; accepted: public keys of P-384",
        ),
    ],
)
def test_a_folder_without_good_keys_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    folder = tmp_path / "peers"
    if name:
        folder.mkdir()
        (folder / name).write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        known_peers(settings_with(tmp_path, peers=str(folder)))
