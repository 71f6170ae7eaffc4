"""Certificates and keys of a deployment: who vouches for whom, for what names, how long."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509 import verification

from core import SettingsError
from llm_qfl.cli.deploy.keys import (
    check_host,
    days_left,
    make_authority,
    make_node_key,
    make_server,
    server_names,
)
from llm_qfl.cli.superlink import healthy


class Files:
    def __init__(self, folder: Path) -> None:
        self.authority = folder / "ca.crt", folder / "ca.key"
        self.server = folder / "server.crt", folder / "server.key"
        make_authority(*self.authority)
        make_server(self.authority, *self.server, ["hub.example.org", "10.1.2.3"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("keys"))


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    "name", ["hub.example.org", "10.1.2.3", "localhost", "127.0.0.1", "::1", "elsewhere.org"]
)
def test_the_authority_vouches_for_the_server_under_its_names_only(files: Files, name: str) -> None:
    store = verification.Store([certificate(files.authority[0])])
    subject: verification.Subject
    try:
        subject = x509.IPAddress(ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    verifier = verification.PolicyBuilder().store(store).build_server_verifier(subject)
    if name == "elsewhere.org":
        with pytest.raises(verification.VerificationError):
            verifier.verify(certificate(files.server[0]), [])
    else:
        assert len(verifier.verify(certificate(files.server[0]), [])) == 2


def test_another_authority_vouches_for_nothing_here(files: Files, tmp_path: Path) -> None:
    make_authority(tmp_path / "ca.crt", tmp_path / "ca.key")
    store = verification.Store([certificate(tmp_path / "ca.crt")])
    builder = verification.PolicyBuilder().store(store)
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("localhost")).verify(
            certificate(files.server[0]), []
        )


def test_certificates_are_good_from_before_now_for_their_time(files: Files) -> None:
    for path, days in ((files.authority[0], 3650), (files.server[0], 397)):
        made = certificate(path)
        assert made.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=30)
        assert days - 0.1 < days_left(path) < days + 0.1


def test_a_server_cannot_sign_for_others(files: Files) -> None:
    constraints = certificate(files.server[0]).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert not constraints.value.ca
    usage = certificate(files.server[0]).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usage.value) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]


def test_private_keys_are_their_owners_alone(files: Files, tmp_path: Path) -> None:
    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    for key in (files.authority[1], files.server[1], tmp_path / "node.key"):
        assert mode(key) == 0o600
    assert files.authority[1].read_bytes() != files.server[1].read_bytes()
    with pytest.raises(FileExistsError):
        make_node_key(tmp_path / "node.key", tmp_path / "other.pub")
    assert (tmp_path / "node.key").stat().st_size > 0


def test_a_server_key_belongs_to_its_certificate(files: Files) -> None:
    key = load_pem_private_key(files.server[1].read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == certificate(files.server[0]).public_key()


def test_flower_takes_a_nodes_keys(tmp_path: Path) -> None:
    # Its own readers: of `flwr supernode register` and of `flower-supernode`.
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, uses_nist_ec_curve

    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    private = load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    registered = bytes_to_public_key(try_load_public_key(tmp_path / "node.pub"))
    assert uses_nist_ec_curve(registered)
    assert registered == private.public_key()


def test_the_names_can_be_read_again_to_renew(files: Files) -> None:
    expected = ("hub.example.org", "10.1.2.3", "localhost", "127.0.0.1", "::1")
    assert server_names(files.server[0]) == expected


@pytest.mark.parametrize(
    ("given", "taken"), [("Hub.Example.org", "hub.example.org"), ("192.168.0.7", "192.168.0.7")]
)
def test_hosts_are_names_or_addresses(given: str, taken: str) -> None:
    assert check_host(given) == taken


@pytest.mark.parametrize(
    "host",
    [
        "",
        "https://hub.org",
        "hub.org:8000",
        "a b",
        "-a.org",
        "1.2.3",
        "x" * 64,
        "a_b",
        "::1",
        "[::1]",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(
        SettingsError, match="a host name or an IPv4 address, without port or scheme"
    ):
        check_host(host)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(files: Files) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files.server)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_health_is_asked_over_tls_and_of_the_right_server(
    files: Files, tmp_path: Path, served: int
) -> None:
    assert healthy(served, authority=files.authority[0])
    assert healthy(served, "localhost", files.authority[0])
    make_authority(tmp_path / "ca.crt", tmp_path / "ca.key")
    assert not healthy(served, authority=tmp_path / "ca.crt")
    assert not healthy(served)
