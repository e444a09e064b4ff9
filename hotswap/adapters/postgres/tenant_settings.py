"""A node's view of its tenants' settings, kept in memory and read from tenant_plugin_configs. A TenantSettingsProvider.

Serving never waits for PostgreSQL: `ensure` reads a plugin's rows before its first host, `refresh` (the node's reconcile
beat) what changed since. Secrets are stored as ciphertexts; `decrypt` is injected, and without it nobody has any.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from hotswap.adapters import record_rules as rules
from hotswap.adapters.postgres.session import Session
from hotswap.adapters.postgres.tables import tenant_plugin_configs as table
from hotswap.domain.errors import Unavailable
from hotswap.ports.tenant_settings import MAX_SETTINGS_BYTES, Decrypt, Prepare, TenantSettings

logger = logging.getLogger(__name__)

READ_TIMEOUT = 10.0
"""Seconds for one read. A server that hangs must count as away."""

OVERLAP = timedelta(minutes=2)
"""How far each read looks back beyond the one before: `updated_at` is taken before the commit that shows it, and a
transaction lasts at most 90 s (statement_timeout 30 s, then 60 s idle)."""

WHOLE_EVERY = 300.0
"""Seconds between reads of everything, which also see rows that are gone."""

_COLUMNS = (
    table.c.tenant_id,
    table.c.plugin_id,
    table.c.enabled,
    table.c.configuration,
    table.c.secrets,
    table.c.updated_at,
)


class PostgresTenantSettings:
    """Belongs to one event loop. Knows the plugins that were ensured; 10,000 tenants of 1 KB take about 50 MB."""

    def __init__(self, engine: AsyncEngine, decrypt: Decrypt | None = None, prepare: Prepare | None = None) -> None:
        """`prepare` is awaited with stored secrets before `decrypt` opens them."""
        self._engine = engine
        self._decrypt = decrypt
        self._prepare = prepare
        self.disabled: set[tuple[str, str]] = set()
        self._known: dict[str, dict[str, TenantSettings]] = {}
        """Plugin -> tenant -> settings. An object is replaced only when what it says changes."""
        self._reading = asyncio.Lock()
        self._since: datetime | None = None
        self._whole_at = 0.0
        self._keys_away = False
        self._told: set[tuple[str, str]] = set()
        """Rows whose fault was logged; once each until they are right again."""

    def current(self, tenant: str, plugin: str) -> TenantSettings | None:
        tenants = self._known.get(plugin)
        return tenants.get(tenant) if tenants is not None else None

    def known(self, plugin: str) -> Mapping[str, TenantSettings]:
        return self._known.get(plugin, {})

    def plugins(self) -> Collection[str]:
        return self._known.keys()

    async def ensure(self, plugin: str) -> None:
        if plugin in self._known:
            return
        rules.check_storable({"plugin": plugin})
        async with self._reading:
            if plugin not in self._known:
                async with self._session() as session:
                    rows = await session.all(_configured(table.c.plugin_id == plugin))
                await self._have_keys(rows)
                self._known[plugin] = {}
                self._learn(rows)

    async def refresh(self) -> None:
        async with self._reading:
            plugins = list(self._known)
            whole = self._since is None or monotonic() - self._whole_at >= WHOLE_EVERY
            if not plugins:
                return
            ours = table.c.plugin_id.in_(plugins)
            async with self._session() as session:
                now = (await session.run(select(func.clock_timestamp()))).scalar_one()
                if whole:
                    rows = await session.all(_configured(ours))
                else:
                    assert self._since is not None
                    changed = select(*_COLUMNS).where(ours, table.c.updated_at >= self._since - OVERLAP)
                    rows = await session.all(changed)
            if whole:
                self._whole_at = monotonic()
            await self._have_keys(rows)
            if whole:
                self._forget_all_but({(row.plugin_id, row.tenant_id) for row in rows})
            self._since = now
            self._learn(rows)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        session = Session(self._engine)
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                await session.begin()
                yield session
        except TimeoutError:
            raise Unavailable(f"PostgreSQL did not tell tenants' settings within {READ_TIMEOUT:g} s") from None
        finally:
            await session.end()

    async def _have_keys(self, rows: Iterable[Row[Any]]) -> None:
        """Keys that cannot be had now cost their tenants' secrets, nobody else's: everything is read again at the next look."""
        if self._prepare is None:
            return
        try:
            await self._prepare([row.secrets for row in rows if row.secrets])
        except Unavailable as fault:
            self._whole_at = 0.0
            if not self._keys_away:
                logger.warning("keys of tenants' secrets cannot be had: %s", fault.message)
            self._keys_away = True
        else:
            self._keys_away = False

    def _forget_all_but(self, there: set[tuple[str, str]]) -> None:
        self.disabled -= {key for key in self.disabled if (key[1], key[0]) not in there}
        for plugin, tenants in self._known.items():
            for tenant in [tenant for tenant in tenants if (plugin, tenant) not in there]:
                del tenants[tenant]

    def _learn(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            tenants = self._known[row.plugin_id]
            (self.disabled.discard if row.enabled else self.disabled.add)((row.tenant_id, row.plugin_id))
            if row.configuration is None and row.secrets is None:
                tenants.pop(row.tenant_id, None)
                continue
            had = tenants.get(row.tenant_id)
            fresh = self._settings(row, had)
            if fresh is not None and (had is None or (fresh.config, fresh.secrets) != (had.config, had.secrets)):
                tenants[row.tenant_id] = fresh

    def _settings(self, row: Row[Any], had: TenantSettings | None) -> TenantSettings | None:
        """What the row says; None, and a line in the log, when it cannot be used: what the tenant had then stays."""
        version = int(row.updated_at.timestamp() * 1_000_000)
        if had is not None and had.version == version:
            return had
        config = row.configuration if row.configuration is not None else {}
        secrets, why = self._secrets(row)
        if not isinstance(config, dict):
            why = "the configuration is not a JSON object"
        elif max(len(json.dumps(config)), len(json.dumps(secrets))) > MAX_SETTINGS_BYTES:
            why = f"there are more than {MAX_SETTINGS_BYTES} bytes"
        if why:
            self._tell(row, why)
            return None
        self._told.discard((row.plugin_id, row.tenant_id))
        return TenantSettings(version, config, secrets)

    def _secrets(self, row: Row[Any]) -> tuple[dict[str, str], str]:
        """By name; and why not, if they cannot be read."""
        if self._decrypt is None or not row.secrets:
            return {}, ""
        try:
            return dict(self._decrypt(row.tenant_id, row.plugin_id, row.secrets)), ""
        except Exception as fault:  # noqa: BLE001 - one tenant's broken row must not cost the others theirs
            return {}, f"its secrets cannot be decrypted: {type(fault).__name__}"  # its text is not ours to vouch for

    def _tell(self, row: Row[Any], why: str) -> None:
        if (row.plugin_id, row.tenant_id) not in self._told:
            self._told.add((row.plugin_id, row.tenant_id))
            logger.error(
                "the settings of tenant %s for %s cannot be used (%s); what it had stays in force",
                row.tenant_id,
                row.plugin_id,
                why,
                extra={"plugin": row.plugin_id, "tenant": row.tenant_id},
            )


def _configured(plugins: Any) -> Any:
    return select(*_COLUMNS).where(
        plugins, or_(table.c.configuration.is_not(None), table.c.secrets.is_not(None), table.c.enabled.is_(False))
    )
