"""Who wraps the data keys of tenants: files and environment, a Kubernetes Secret, Vault (hotswap.adapters.key_providers).

A provider's own key never leaves it but for the local ones; what is stored is a wrapped data key and the id of the key
that wrapped it. `context` (whose key it is) is bound to what is wrapped: moved to another tenant it does not unwrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WrappedKey:
    wrapped: str
    wrapped_by: str
    context: str = field(default="", compare=False)


class KeyProvider(Protocol):
    """Every method raises Unavailable (a repeat helps once the provider, or the right key, is back)."""

    async def wrap(self, data_key: bytes, context: str) -> WrappedKey:
        """Wrap by the newest key of the provider."""
        ...

    async def unwrap(self, keys: Sequence[WrappedKey]) -> Sequence[bytes | None]:
        """Each of them, in order, by whichever key wrapped it; None for one that this provider cannot unwrap."""
        ...

    async def close(self) -> None: ...
