"""Seals small secrets for PostgreSQL: AES-256-GCM under a key-encryption key, bound to what the secret is for."""

import base64
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotswap.domain.errors import Unavailable

_NONCE_BYTES = 12


class Sealer:
    """One key-encryption key. `key_id` names it without telling it, and is stored beside what it sealed."""

    def __init__(self, key: bytes) -> None:
        self.key_id = hashlib.sha256(b"hotswap key-encryption key\0" + key).hexdigest()[:16]
        self._cipher = AESGCM(key)

    def seal(self, secret: bytes, context: str) -> str:
        """`context` (what it is, whose it is) is authenticated: sealed text moved to another row does not open."""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret, context.encode())).decode()

    def open(self, sealed: str, context: str) -> bytes:
        """Raises Unavailable: sealed under another key, or changed since. A repeat helps once the right key is set."""
        try:
            whole = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(whole[:_NONCE_BYTES], whole[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise Unavailable(f"{context} does not open with the key-encryption key that is set") from None
