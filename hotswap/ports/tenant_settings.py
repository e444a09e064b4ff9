"""A tenant's configuration and secrets for a plugin: the port between who keeps them and who hands them to hosts.

Neighbours: hotswap.runtime.tenant_ledger asks for every call, hotswap.node.reconcile keeps it fresh.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_SETTINGS_BYTES = 256 * 1024
"""Largest configuration, or set of secrets, of one tenant for one plugin, as JSON. A larger one is not handed out."""

Decrypt = Callable[[str, str, Mapping[str, Any]], Mapping[str, str]]
"""(tenant, plugin, what is stored) -> the secrets by name. Raises whatever it likes; its text must hold no secret."""


Prepare = Callable[[Iterable[Any]], Awaitable[None]]
"""(what is stored, of several rows) -> their keys are at hand for Decrypt. Raises Unavailable when one is not; the rest are."""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """`version` differs whenever the rest does. `secrets` by name, in plain text: never logged, never stored as they are."""

    version: int
    config: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class TenantSettingsProvider(Protocol):
    def current(self, tenant: str, plugin: str) -> TenantSettings | None:
        """Hot path: what is known now, the very same object until it changes. None: the tenant has none of its own."""
        ...

    async def ensure(self, plugin: str) -> None:
        """Return when the plugin's settings are known; at once when they were before. Raises Unavailable."""
        ...

    async def refresh(self) -> None:
        """Learn what changed of the plugins that are known. Raises Unavailable; what is known then stays."""
        ...


class NodeTenants(TenantSettingsProvider, Protocol):
    """What a node keeps of its tenants: settings, and who may not call."""

    @property
    def disabled(self) -> Set[tuple[str, str]]:
        """(tenant, plugin) whose calls are refused, of the plugins that are known. Always the same, changing set."""
        ...

    def known(self, plugin: str) -> Mapping[str, TenantSettings]:
        """Of every tenant that has some, those of this plugin; the very same objects as `current` gives."""
        ...

    def plugins(self) -> Collection[str]:
        """Those that were ensured."""
        ...
