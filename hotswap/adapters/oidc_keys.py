"""Fetches an identity provider's key set (RFC 7517) over HTTPS: one address from the settings, bounded, no redirects."""

import asyncio
from typing import Any

import httpx
from pydantic_core import from_json

from hotswap.config_access import OidcSettings
from hotswap.domain.base import bounded
from hotswap.domain.errors import Unavailable

_MAX_BYTES = 256 * 1024
"""A key set of 100 RSA keys with certificate chains has 200 KiB."""


class HttpKeySet:
    def __init__(self, settings: OidcSettings) -> None:
        self._url = settings.jwks_url
        self._timeout = settings.timeout.total_seconds()
        # trust_env: behind a proxy the provider is reached the way the operator has set for this process.
        self._http = httpx.AsyncClient(timeout=self._timeout, follow_redirects=False)

    async def fetch(self) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(self._timeout), self._http.stream("GET", self._url) as answer:
                if answer.status_code != 200:
                    raise Unavailable(f"the key set at {self._url} answered {answer.status_code}")
                content = bytearray()
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        raise Unavailable(f"the key set at {self._url} is over {_MAX_BYTES} bytes")
            document = from_json(bytes(content))
        except (httpx.HTTPError, TimeoutError, ValueError) as fault:
            why = f"{type(fault).__name__}: {fault}"
            raise Unavailable(f"the key set at {self._url} cannot be read: {bounded(why)}") from fault
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list):
            raise Unavailable(f"what is at {self._url} is no key set")
        return [key for key in keys if isinstance(key, dict)]

    async def close(self) -> None:
        await self._http.aclose()
