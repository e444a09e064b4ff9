"""Reads a 256-bit key out of a setting. Standard library only: hotswap.config checks settings with it."""

import base64
import binascii

KEY_BYTES = 32
GENERATE = "openssl rand -base64 32"


def decode_key(text: str) -> bytes:
    """32 bytes from base64 (either alphabet, with or without padding) or 64 hex digits. Raises ValueError with the remedy."""
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
        key = base64.b64decode(text.translate(str.maketrans("-_", "+/")).rstrip("=") + "=", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"must be 32 random bytes in base64 or hex; make one with: {GENERATE}")
    return key
