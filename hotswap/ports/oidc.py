"""The key set of an identity provider, as api.services.oidc needs it."""

from typing import Any, Protocol


class KeySetSource(Protocol):
    async def fetch(self) -> list[dict[str, Any]]:
        """The JWKs as they are published now. Raises Unavailable when the provider does not answer with a key set."""
        ...

    async def close(self) -> None: ...
