"""Wraps data keys with the transit engine of HashiCorp Vault (or OpenBao): the wrapping key never leaves the server.

POST /v1/{mount}/encrypt/{key} and /decrypt/{key} with X-Vault-Token; decrypt in batches (`batch_input`, `batch_results`).
What is encrypted is the data key and a SHA-256 of its context, so that a wrapped key moved to another tenant is refused
whatever the version of the server (`associated_data` came with Vault 1.9 and only for some key types).
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any

import httpx

from hotswap.config_keys import KeySettings
from hotswap.domain.errors import Unavailable
from hotswap.keys.sealing import KEY_BYTES
from hotswap.ports.keys import WrappedKey

_CIPHERTEXT = re.compile(r"^vault:v(\d{1,9}):[A-Za-z0-9+/=_-]{1,4096}$")
MAX_ANSWER_BYTES = 1024 * 1024


class VaultKeyProvider:
    """The token is read for each call, so that an agent may renew the file it comes from."""

    def __init__(self, settings: KeySettings) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            base_url=settings.vault_address.rstrip("/") + "/v1",
            timeout=settings.vault_timeout.total_seconds(),
            trust_env=False,
            follow_redirects=False,
        )

    async def wrap(self, data_key: bytes, context: str) -> WrappedKey:
        plaintext = base64.b64encode(data_key + _digest(context)).decode()
        answer = await self._post("encrypt", {"plaintext": plaintext})
        found = _CIPHERTEXT.match(str(answer.get("ciphertext")))
        if found is None:
            raise Unavailable("Vault answered no ciphertext of its transit engine")
        return WrappedKey(found[0], self._key_id(found[1]), context)

    async def unwrap(self, keys: Sequence[WrappedKey]) -> Sequence[bytes | None]:
        if not keys:
            return []
        ours = [index for index, key in enumerate(keys) if _CIPHERTEXT.match(key.wrapped)]
        opened: list[bytes | None] = [None] * len(keys)
        if ours:
            batch = [{"ciphertext": keys[index].wrapped} for index in ours]
            answer = await self._post("decrypt", {"batch_input": batch})
            results = answer.get("batch_results")
            if not isinstance(results, list) or len(results) != len(ours):
                raise Unavailable("Vault answered another number of keys than it was asked for")
            for index, result in zip(ours, results, strict=True):
                opened[index] = _opened(result, keys[index].context)
        return opened

    async def close(self) -> None:
        await self._client.aclose()

    def _key_id(self, version: str) -> str:
        return f"vault:{self._settings.vault_mount}/{self._settings.vault_key}:v{version}"

    async def _post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        path = f"/{self._settings.vault_mount}/{what}/{self._settings.vault_key}"
        try:
            headers = {"X-Vault-Token": self._settings.current_vault_token(), "X-Vault-Request": "true"}
            if self._settings.vault_namespace:
                headers["X-Vault-Namespace"] = self._settings.vault_namespace
            response = await self._client.post(path, json=body, headers=headers)
        except OSError as fault:
            raise Unavailable(f"Vault's token cannot be read: {fault.strerror}") from None
        except httpx.HTTPError as fault:
            raise Unavailable(f"Vault does not answer: {type(fault).__name__}") from None
        if len(response.content) > MAX_ANSWER_BYTES:
            raise Unavailable("Vault's answer is too long")
        # A batch in which some items failed is answered with 400 and the results of all (Vault's documentation).
        document = _object(response)
        data = document.get("data")
        partly = response.status_code == 400 and isinstance(data, dict) and "batch_results" in data
        if (response.status_code == 200 or partly) and isinstance(data, dict):
            return data
        raise Unavailable(f"Vault refused to {what}: {response.status_code} {_errors(document)}")


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _errors(document: dict[str, Any]) -> str:
    errors = document.get("errors")
    return "; ".join(str(error)[:200] for error in errors[:3]) if isinstance(errors, list) else ""


def _digest(context: str) -> bytes:
    return hashlib.sha256(context.encode()).digest()


def _opened(result: Any, context: str) -> bytes | None:
    """None: refused, not ours, or of another context."""
    text = result.get("plaintext") if isinstance(result, dict) else None
    try:
        whole = base64.b64decode(text or "", validate=True)
    except (ValueError, TypeError):
        return None
    key, digest = whole[:KEY_BYTES], whole[KEY_BYTES:]
    return key if len(key) == KEY_BYTES and hmac.compare_digest(digest, _digest(context)) else None
