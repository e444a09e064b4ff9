"""What Temporal stores of us, encrypted: a payload codec of AES-256-GCM. Used by every client (hotswap.temporal.connect).

A payload is encrypted whole, its encoding included; the id of its key stands beside it in the clear, so that a new key can
encrypt while older ones still decrypt. What is not encrypted passes through: histories of before keep working. Search
attributes, workflow ids, queue names and types are never encrypted: the server reads them (docs/temporal.md).
"""

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from hotswap.domain.errors import Unavailable

ENCODING = b"binary/encrypted"
"""As Temporal's own samples name it, so that the Web UI knows to ask a codec server."""

KEY_ID = "encryption-key-id"

_SALT_BYTES = 16
_NONCE_BYTES = 12


class PayloadUnreadable(Unavailable):
    """Encrypted under a key we do not have, or changed. What needs it is tried again: once the key is back it goes on."""


class EncryptingCodec(PayloadCodec):
    """`keys`: the first encrypts, all decrypt; at least one.

    Each payload has a key of its own, derived from ours and a random salt: random nonces under one key alone would be
    safe for 2^32 payloads only (NIST SP 800-38D), which a busy installation writes in months.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {key_id(key): key for key in reversed(keys)}
        self._current = key_id(keys[0])

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises PayloadUnreadable."""
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        name = self._current
        sealed = _cipher(self._keys[name], salt).encrypt(nonce, payload.SerializeToString(), name.encode())
        return Payload(metadata={"encoding": ENCODING, KEY_ID: name.encode()}, data=salt + nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata.get(KEY_ID, b"").decode("ascii", "replace")
        key = self._keys.get(name)
        if key is None:
            raise PayloadUnreadable(
                f"a payload is encrypted under key {name[:40]!r}, which is not among HOTSWAP_TEMPORAL__PAYLOAD_KEYS "
                f"({', '.join(self._keys)}): give it back, behind the first, until no history needs it"
            )
        salt, nonce, sealed = _parts(payload.data)
        try:
            return Payload.FromString(_cipher(key, salt).decrypt(nonce, sealed, name.encode()))
        except (InvalidTag, DecodeError, ValueError):
            raise PayloadUnreadable(
                f"a payload encrypted under key {name} does not open: it was changed or cut"
            ) from None


def key_id(key: bytes) -> str:
    """Names a payload key without telling it."""
    return hashlib.sha256(b"hotswap temporal payload key\0" + key).hexdigest()[:16]


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    """NIST SP 800-108 with HMAC-SHA-256 and one block: the key of one payload."""
    return AESGCM(hmac.digest(key, b"hotswap temporal payload\0" + salt, "sha256"))


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    nonce_at, sealed_at = _SALT_BYTES, _SALT_BYTES + _NONCE_BYTES
    return data[:nonce_at], data[nonce_at:sealed_at], data[sealed_at:]
