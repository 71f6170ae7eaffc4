"""Agreed secrets and pseudorandom masks: X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), ChaCha20.

Every derived secret is bound to the digest of its group, so two sites that were sent different
groups have nothing in common.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.secagg.errors import SecAggError
from core.secagg.shamir import SECRET_BYTES
from core.secagg.wire import number_bytes

COMMITMENT_BYTES = 32


def agree(private: bytes, public: bytes, context: bytes, length: int) -> bytes:
    """Return what two holders of X25519 keys both know, for one purpose.

    Raises
    ------
    SecAggError
        If the public key is one of the few that agree with everybody on nothing.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise SecAggError("a public key is of low order") from None
    return _derived(shared, context, length)


def pair_seed(private: bytes, public: bytes, digest: bytes, one: int, other: int) -> bytes:
    """Return the seed of the mask that two members share, 16 bytes."""
    pair = number_bytes(min(one, other)) + number_bytes(max(one, other))
    return agree(private, public, b"llm-qfl secagg mask" + digest + pair, SECRET_BYTES)


def channel(digest: bytes, sender: int, receiver: int) -> bytes:
    """Return the context that shares on their way from one member to another are bound to."""
    return b"llm-qfl secagg shares" + digest + number_bytes(sender) + number_bytes(receiver)


def commitment(digest: bytes, dealer: int, other: int, seed: bytes) -> bytes:
    """Return what a dealer publishes of a seed: SHA-256 over whose it is and the seed.

    `other` is the second member of a pairwise seed, or the dealer itself for its own.
    """
    place = digest + number_bytes(dealer) + number_bytes(other)
    return hashlib.sha256(b"llm-qfl secagg commitment" + place + seed).digest()


def mask_of(seed: bytes, length: int) -> npt.NDArray[np.uint64]:
    """Return the mask that a seed stands for: uniform numbers of the ring, (length,)."""
    key = _derived(seed, b"llm-qfl secagg stream", 32)
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(8 * length)), "<u8").astype(np.uint64)


def _derived(secret: bytes, context: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt=None, info=context).derive(secret)
