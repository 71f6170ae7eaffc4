"""The certificates and keys of a deployment: one private authority, one server, N nodes.

Flower 1.41 knows a SuperNode by an elliptic-curve key on a NIST curve, the private half in
OpenSSH's format; we take P-384, as Flower's own tools do. A node signs the time of each of its
calls, not their content, so it is TLS that protects the content: nodes refuse to go without.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core import SettingsError, UserError, write_bytes, write_once

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names every server certificate holds: Flower's own parts speak to each other on loopback."""

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""Days that a server certificate is good for: what browsers and clients at most accept."""

_LATE_CLOCK = timedelta(hours=1)
"""Certificates are good from a little before now: another machine's clock may be slow."""

_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


def check_host(host: str) -> str:
    """Return a host name or IPv4 address if it is one.

    Raises
    ------
    SettingsError
        If it is neither. IPv6 is refused here rather than at the first call: Flower 1.41's
        SuperLink listens on one family only, and our parts ask it on IPv4.
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv4Address(host))
    if not _HOST.fullmatch(host) or re.fullmatch(r"[\d.]+", host):
        raise SettingsError(
            f"--host {host!r}",
            "a host name or an IPv4 address, without port or scheme",
            "name the SuperLink's machine as the sites know it",
        )
    return host.lower()


def make_authority(certificate: Path, key: Path) -> None:
    """Make a private certificate authority; its key is only needed to sign."""
    private = ec.generate_private_key(ec.SECP384R1())
    name = _name("LLM-QFL federation")
    uses = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    uses += ["key_agreement", "encipher_only", "decipher_only"]
    signs = x509.KeyUsage(**dict.fromkeys(uses, False), key_cert_sign=True, crl_sign=True)
    own = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    extensions = {x509.BasicConstraints(ca=True, path_length=0): True, signs: True, own: False}
    made = _issue((name, name), private.public_key(), AUTHORITY_DAYS, extensions, private)
    write_once(key, _pem(private))
    write_bytes(certificate, made)


def make_server(
    authority: tuple[Path, Path], certificate: Path, key: Path, hosts: Iterable[str]
) -> None:
    """Make a server's key and have the authority, a certificate and its key, sign its certificate.

    `hosts` are the names and addresses under which it is reached, besides loopback.
    """
    signer = _signer(authority[1])
    private = ec.generate_private_key(ec.SECP384R1())
    names = list(dict.fromkeys([*hosts, *LOOPBACK]))
    extensions = {
        x509.SubjectAlternativeName(map(_general, names)): False,
        x509.BasicConstraints(ca=False, path_length=None): True,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]): False,
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()): False,
    }
    subjects = _name(names[0][:64]), _certificate(authority[0]).subject
    made = _issue(subjects, private.public_key(), SERVER_DAYS, extensions, signer)
    write_once(key, _pem(private))
    write_bytes(certificate, made)


@contextlib.contextmanager
def drafts(*paths: Path) -> Iterator[None]:
    """Make room for new files beside the old ones; what is left of them at the end is removed."""
    for path in paths:
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def make_node_key(private: Path, public: Path) -> None:
    """Make the key pair by which the SuperLink knows one SuperNode."""
    key = ec.generate_private_key(ec.SECP384R1())
    openssh = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    write_once(private, key.private_bytes(*openssh, serialization.NoEncryption()))
    formats = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    write_bytes(public, key.public_key().public_bytes(*formats) + b"\n")


def public_pem(public: Path) -> bytes:
    """Read a node's public key in OpenSSH's format; return it in PEM, as Flower stores it.

    Raises
    ------
    ValueError
        If it is no elliptic-curve key.
    """
    try:
        key = serialization.load_ssh_public_key(public.read_bytes())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an elliptic-curve key")
    formats = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(*formats)


def days_left(certificate: Path) -> float:
    """Return the days until a certificate expires; negative afterwards."""
    made = _certificate(certificate)
    return (made.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400


def server_names(certificate: Path) -> tuple[str, ...]:
    """Return the names and addresses that a server certificate is made out to."""
    made = _certificate(certificate)
    try:
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise _damaged(certificate, "a certificate with names") from None
    return tuple(str(name.value) for name in names)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise _damaged(path, "a certificate in PEM") from None


def _signer(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path, "an elliptic-curve key in PEM, without a password")
    return key


def _damaged(path: Path, accepted: str) -> UserError:
    return UserError(f"{str(path)!r} is damaged", accepted, "restore the file")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _issue(
    names: tuple[x509.Name, x509.Name],
    key: ec.EllipticCurvePublicKey,
    days: int,
    extensions: Mapping[x509.ExtensionType, bool],
    signer: ec.EllipticCurvePrivateKey,
) -> bytes:
    """Sign a certificate of a key; `names` are subject and issuer, an extension may be critical."""
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1])
    made = made.public_key(key).serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - _LATE_CLOCK).not_valid_after(now + timedelta(days=days))
    for extension, critical in extensions.items():
        made = made.add_extension(extension, critical)
    return made.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
