"""Seals and opens one secret under a data key: AES-256-GCM, bound to tenant, plugin, name and key. Pure.

A ciphertext moved to another tenant, plugin or name does not open. Nonces are random: 2^32 seals under one key keep the
chance of a repeat under 2^-32 (NIST SP 800-38D), and a tenant's secrets change by hand.
"""

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotswap.domain.errors import Unavailable

KEY_BYTES = 32
_NONCE_BYTES = 12


def new_data_key() -> bytes:
    return AESGCM.generate_key(bit_length=KEY_BYTES * 8)


def seal(key: bytes, key_id: str, secret: str, *whose: str) -> str:
    """`whose`: tenant, plugin, name."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, secret.encode(), _bound(key_id, whose))).decode()


def unseal(key: bytes, key_id: str, sealed: str, *whose: str) -> str:
    """Raises Unavailable, whose text holds nothing of the secret: changed, moved, or sealed under another key."""
    try:
        whole = base64.b64decode(sealed, validate=True)
        return AESGCM(key).decrypt(whole[:_NONCE_BYTES], whole[_NONCE_BYTES:], _bound(key_id, whose)).decode()
    except (InvalidTag, ValueError):
        raise Unavailable(f"the secret {'/'.join(whose)} does not open with data key {key_id}") from None


def _bound(key_id: str, whose: tuple[str, ...]) -> bytes:
    return "\0".join(("hotswap tenant secret", key_id, *whose)).encode()
