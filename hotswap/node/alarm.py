"""Tells a version's health monitor, a durable workflow, when a fault on this node lasts. Until then the monitor sleeps.

Neighbours: hotswap.node.seat probes and restarts processes, which mends most faults before anybody is told;
workflows.monitor hears the signal and asks all nodes; hotswap.node.agent runs this beside the polling for orders.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from hotswap.domain.deployment import Environment
from hotswap.domain.health import FaultSeen
from hotswap.domain.ids import monitor_workflow_id
from hotswap.node.supervisor import NodeSupervisor

log = logging.getLogger(__name__)

LASTS = 3
"""Looks in a row, one a beat, that must find the version faulty: a process that dies once is back within one. Or deaths
within DEATHS_WITHIN, for a version that comes back each time."""

DEATHS_WITHIN = 120.0
"""Seconds. Slower deaths are never three looks of the monitor (30 s by default) in a row."""

AGAIN_AFTER = 60.0
"""Seconds until a fault that still lasts is told again: the monitor may have rested, since most other hosts were well."""

Tell = Callable[[str, str], Awaitable[None]]
"""Of a plugin and its version; raises RPCError."""


class FaultAlarm:
    """`clock` in seconds."""

    def __init__(self, supervisor: NodeSupervisor, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._supervisor = supervisor
        self._tell = tell
        self._clock = clock
        self._faulty: dict[tuple[str, str], int] = {}
        self._crashes: dict[tuple[str, str], int] = {}
        self._deaths: dict[tuple[str, str], list[float]] = {}
        self._told: dict[tuple[str, str], float] = {}

    async def run(self, every: timedelta) -> None:
        """Look until cancelled. A Temporal that is away hears of it at the next look."""
        while True:
            await asyncio.sleep(every.total_seconds())
            try:
                await self.look()
            except RPCError as fault:
                log.warning("no monitor could be told of a fault: %s", fault)

    async def look(self) -> None:
        """Count, and tell what lasts. Raises RPCError."""
        now = self._clock()
        loaded = {(host.ref.plugin, host.ref.version): host for host, _ in self._supervisor.loaded()}
        self._faulty = {key: self._faulty.get(key, 0) + 1 for key, host in loaded.items() if host.faulty}
        self._remember_deaths({key: host.crashes for key, host in loaded.items()}, now)
        lasting = [
            key for key in loaded if self._faulty.get(key, 0) >= LASTS or len(self._deaths.get(key, ())) >= LASTS
        ]
        self._told = {key: at for key, at in self._told.items() if key in lasting}
        fault: RPCError | None = None
        for key in lasting:
            if now - self._told.get(key, now - AGAIN_AFTER) >= AGAIN_AFTER:
                try:
                    await self._tell(*key)
                    self._told[key] = now
                except RPCError as found:  # one monitor that cannot be told must keep no other from hearing
                    fault = found
        if fault is not None:
            raise fault

    def _remember_deaths(self, crashes: dict[tuple[str, str], int], now: float) -> None:
        for key, count in crashes.items():
            new = max(0, count - self._crashes.get(key, count))
            if new or key in self._deaths:
                recent = [at for at in self._deaths.get(key, []) if now - at < DEATHS_WITHIN] + [now] * new
                self._deaths[key] = recent[-LASTS:]
        self._crashes = crashes
        self._deaths = {key: times for key, times in self._deaths.items() if times and key in crashes}


def by_signal(client: Client, environment: Environment, node_id: str) -> Tell:
    """Tells by the signal `fault` of the monitor's workflow; a version that nobody monitors has nobody to tell."""

    async def tell(plugin: str, version: str) -> None:
        monitor = client.get_workflow_handle(monitor_workflow_id(environment, plugin))
        try:
            await monitor.signal("fault", FaultSeen(node_id=node_id, version=version))
        except RPCError as fault:
            if fault.status is not RPCStatusCode.NOT_FOUND:
                raise

    return tell
