"""A site's identity: the P-384 key by which the others know it.

In a deployment it is the node's own key (``llm-qfl deploy``). Without one it is made of the secret
in the site's store, so that it is the same after a restart.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.errors import SettingsError
from core.secagg.errors import SecAggError
from core.settings.schema import Settings
from core.storage.content_store import open_store, site_secret
from core.storage.files import real_path

IDENTITY_BYTES = 49
"""A compressed point of P-384 (SEC 1, section 2.3.3)."""

SIGNATURE_BYTES = 96
"""ECDSA's r and s, 48 bytes each."""

_PEER = re.compile(r"node-(0|[1-9]\d{0,5})\.pub")
_LARGEST_FILE = 10_000


class Identity:
    """A private P-384 key that signs.

    Parameters
    ----------
    private : EllipticCurvePrivateKey
        The key.

    Attributes
    ----------
    public : bytes
        Its public half, 49 bytes.
    """

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = _point(private.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the ECDSA signature of data with SHA-384, 96 bytes."""
        r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def new_identity() -> Identity:
    """Make an identity that nobody knows yet."""
    return Identity(ec.generate_private_key(ec.SECP384R1()))


def verify(identity: bytes, signature: bytes, data: bytes) -> bool:
    """Whether an identity has signed data."""
    r, s = (int.from_bytes(part, "big") for part in (signature[:48], signature[48:]))
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), identity)
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature):
        return False
    return True


def identity_of(settings: Settings, run: str, client: int) -> Identity:
    """Return a site's identity in one run.

    Parameters
    ----------
    settings : Settings
        With the node's own ``privacy.site_key``.
    run : str
        The run's id.
    client : int
        The client's index.

    Raises
    ------
    SettingsError
        If ``privacy.site_key`` cannot be read or is no such key.
    """
    if settings.privacy.site_key:
        return Identity(_private_key(settings.privacy.site_key))
    try:
        secret = site_secret(open_store(settings.llm.store))
    except OSError:  # a store that cannot be written: the site is a stranger after a restart
        secret = secrets.token_hex(16)
    context = f"llm-qfl secagg identity {run} {client}".encode()
    drawn = HKDF(hashes.SHA256(), 48, salt=None, info=context).derive(secret.encode())
    scalar = int.from_bytes(drawn, "big") % 2**383 + 1  # below the curve's order
    return Identity(ec.derive_private_key(scalar, ec.SECP384R1()))


def known_peers(settings: Settings) -> dict[int, bytes] | None:
    """Return the identities of all sites by client index, or None without ``privacy.peers``.

    Raises
    ------
    SettingsError
        If the folder cannot be read, holds no ``node-K.pub``, or one that is no P-384 key.
    """
    if not settings.privacy.peers:
        return None
    folder = real_path(settings.privacy.peers)
    try:
        found = {int(m[1]): p for p in folder.iterdir() if (m := _PEER.fullmatch(p.name))}
    except OSError as error:
        raise _no_peers(folder, f"cannot be read ({error.strerror})") from None
    if not found:
        raise _no_peers(folder, "holds none")
    return {client: _public_key(found[client]) for client in sorted(found)}


def check_identity(identity: bytes) -> None:
    """Refuse bytes that are no point of P-384.

    Raises
    ------
    SecAggError
        If they are none.
    """
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), identity)
    except ValueError:
        raise SecAggError("an identity is no public key of P-384") from None


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.CompressedPoint
    return key.public_bytes(serialization.Encoding.X962, form)


def _private_key(path: str) -> ec.EllipticCurvePrivateKey:
    try:
        with real_path(path).open("rb") as file:
            data = file.read(_LARGEST_FILE)
    except OSError as error:
        raise _no_key(path, f"cannot be read ({error.strerror})") from None
    try:
        key = serialization.load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp384r1":
        raise _no_key(path, "is no such key")
    return key


def _public_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            key = serialization.load_ssh_public_key(file.read(_LARGEST_FILE))
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise SettingsError(
            f"privacy.peers: {str(path)!r} is no such key",
            "public keys of P-384 in OpenSSH's format",
            "copy that site's file from superlink/nodes/ of the deployment again",
        )
    return _point(key)


def _no_key(path: str, why: str) -> SettingsError:
    return SettingsError(
        f"privacy.site_key = {path!r} {why}",
        "a private key of P-384 in OpenSSH's format, without a password",
        "name the node's own key (node.key of its folder)",
    )


def _no_peers(folder: Path, why: str) -> SettingsError:
    return SettingsError(
        f"privacy.peers = {str(folder)!r} {why}",
        "a folder with every site's public key as node-K.pub, K its client index",
        "copy superlink/nodes/ of the deployment there",
    )
