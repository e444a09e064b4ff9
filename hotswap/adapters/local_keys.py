"""Key providers that hold the wrapping keys themselves: from settings, a file, or a mounted Kubernetes Secret.

The first key wraps, all unwrap: a new one is put in front, `hotswap tenant rotate-keys --all` wraps anew, the old one goes.
Files are read again whenever they have changed, so a rotation needs no restart. Key ids are derived from the keys.
"""

import asyncio
import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotswap.domain.errors import Unavailable
from hotswap.identity.key_material import decode_key
from hotswap.ports.keys import WrappedKey

CURRENT = "current"
"""The entry of a Kubernetes Secret that names the entry whose key wraps."""

_NONCE_BYTES = 12
_MAX_FILE_BYTES = 64 * 1024


class LocalKeyProvider:
    """`read` gives the keys, the wrapping one first; it may raise OSError or ValueError."""

    def __init__(self, read: Callable[[], Sequence[bytes]]) -> None:
        self._read = read

    async def wrap(self, data_key: bytes, context: str) -> WrappedKey:
        key = (await self._keys())[0]
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(key).encrypt(nonce, data_key, context.encode())
        return WrappedKey(base64.b64encode(sealed).decode(), key_id(key), context)

    async def unwrap(self, keys: Sequence[WrappedKey]) -> Sequence[bytes | None]:
        ours = {key_id(key): key for key in await self._keys()}
        return [_opened(ours.get(wrapped.wrapped_by), wrapped) for wrapped in keys]

    async def close(self) -> None:
        """Nothing to close."""

    async def _keys(self) -> Sequence[bytes]:
        try:
            keys = await asyncio.to_thread(self._read)
        except (OSError, ValueError) as fault:
            raise Unavailable(f"the wrapping keys cannot be read: {fault}") from None
        if not keys:
            raise Unavailable("there is no wrapping key")
        return keys


def _opened(key: bytes | None, wrapped: WrappedKey) -> bytes | None:
    if key is None:
        return None
    try:
        whole = base64.b64decode(wrapped.wrapped, validate=True)
        return AESGCM(key).decrypt(whole[:_NONCE_BYTES], whole[_NONCE_BYTES:], wrapped.context.encode())
    except (InvalidTag, ValueError):
        return None


def key_id(key: bytes) -> str:
    """Names a wrapping key without telling it."""
    return "local:" + hashlib.sha256(b"hotswap tenant wrapping key\0" + key).hexdigest()[:16]


def keys_of(texts: Sequence[str]) -> Sequence[bytes]:
    """Raises ValueError saying which is no key, and the remedy."""
    keys = []
    for number, text in enumerate(texts, 1):
        try:
            keys.append(decode_key(text))
        except ValueError as fault:
            raise ValueError(f"key {number} {fault}") from None
    return keys


def keys_in_file(path: Path) -> Sequence[bytes]:
    """One key a line, the wrapping one first; empty lines and comments (#) do not count. Raises OSError, ValueError."""
    lines = [line.strip() for line in _text(path).splitlines()]
    return keys_of([line for line in lines if line and not line.startswith("#")])


def keys_in_mount(directory: Path) -> Sequence[bytes]:
    """A mounted Secret: an entry for each key, and `current`, which names the wrapping one. Raises OSError, ValueError."""
    first = _text(directory / CURRENT).strip()
    names = sorted(path.name for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    if first == CURRENT or first not in names:
        raise ValueError(f"{directory / CURRENT} names {first[:100]!r}, but the Secret has no such entry")
    ordered = [first, *(name for name in names if name not in (first, CURRENT))]
    return keys_of([_text(directory / name) for name in ordered])


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"{path} is over {_MAX_FILE_BYTES} bytes")
    return content.decode("utf-8")
