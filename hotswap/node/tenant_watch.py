"""Looks at tenants' rows as soon as PostgreSQL says that one has changed: settings, pins and who is disabled, in a moment.

Neighbours: hotswap.ports.tenant_changes tells, hotswap.node.reconcile looks, on its own beat too: what is not heard is found.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hotswap.domain.errors import Unavailable
from hotswap.node.outage import Outage
from hotswap.ports.tenant_changes import TenantChanges

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0

BETWEEN_LOOKS = 0.1
"""Seconds: a thousand changes in a row are a few looks, and a change still counts well within a second."""


class TenantWatch:
    def __init__(self, changes: TenantChanges, look: Callable[[], Awaitable[None]]) -> None:
        """`look` raises nothing for a server that is away."""
        self._changes = changes
        self._look = look
        self._outage = Outage("PostgreSQL, for changes of tenants,")

    async def run(self) -> None:
        """Listen until cancelled; after each pause in listening look once, for what was not heard."""
        while True:
            try:
                async with self._changes.listen() as told:
                    self._outage.passed()
                    await self._look()
                    async for _ in told:
                        await self._look()
                        await asyncio.sleep(BETWEEN_LOOKS)
            except Unavailable as fault:
                self._outage.failed(fault)
            except Exception:
                # Nobody awaits this task: a bug below must not end the listening unseen.
                log.exception("listening for changes of tenants failed")
            await asyncio.sleep(RETRY_SECONDS)
