"""Records how versions do on this node in plugin_health_checks: on every change, and every few minutes without one.

Neighbours: hotswap.node.reconcile calls on its beat, hotswap.domain.plugin_health judges, the api shows the rows. Bounded:
a row a version every RECORD_EVERY, and rows older than KEPT are forgotten.
"""

import time
from collections.abc import Callable
from datetime import timedelta

from hotswap.domain.analysis import Health, HostReport
from hotswap.domain.deployment import Environment
from hotswap.domain.ids import new_id
from hotswap.domain.plugin_health import HealthCheck, ProbeKind, health_of
from hotswap.node.supervisor import NodeSupervisor
from hotswap.ports.records import UnitOfWorkFactory

RECORD_EVERY = 1800.0
"""Seconds between rows of a version whose health does not change: 3.4 million rows a week for 1,000 plugins on 10 nodes."""

KEPT = timedelta(days=7)
MOST_A_LOOK = 200
"""Rows written by one look, so that a node that comes up with 1,000 plugins does not hold PostgreSQL: the rest is next."""

MOST_FORGOTTEN = 20_000
"""Rows deleted an hour by each node: ten times what it writes at that size."""

_GONE = ("Stopped", "Draining")


class HealthLog:
    """`clock` in seconds."""

    def __init__(
        self,
        supervisor: NodeSupervisor,
        unit_of_work: UnitOfWorkFactory,
        environment: Environment,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor = supervisor
        self._unit_of_work = unit_of_work
        self._environment = environment
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[Health, float]] = {}

    async def look(self) -> None:
        """Record what has changed and what is due. Raises Unavailable; then the next look records it."""
        now = self._clock()
        by_version: dict[tuple[str, str], list[HostReport]] = {}
        for host in await self._supervisor.reports():
            if host.state not in _GONE:
                by_version.setdefault((host.plugin, host.version), []).append(host)
        due = {}
        for key, hosts in by_version.items():
            health, (before, at) = health_of(hosts), self._told.get(key, (None, 0.0))
            if health is not before or now - at >= RECORD_EVERY:
                due[key] = health
            if len(due) == MOST_A_LOOK:
                break
        if due:
            async with self._unit_of_work() as uow:
                instant = await uow.now()
                for (plugin, version), health in due.items():
                    check = HealthCheck(
                        check_id=new_id("hc"),
                        plugin=plugin,
                        version=version,
                        environment=self._environment,
                        kind=ProbeKind.LIVENESS,
                        status=health,
                        checked_at=instant,
                        error=next((host.last_error for host in by_version[plugin, version] if host.last_error), ""),
                        figures=self._figures(by_version[plugin, version]),
                    )
                    await uow.health.add([check])
                await uow.commit()
        self._told |= {key: (health, now) for key, health in due.items()}
        self._told = {key: told for key, told in self._told.items() if key in by_version}

    async def forget(self) -> None:
        """Delete rows that are too old, of any node. Raises Unavailable."""
        async with self._unit_of_work() as uow:
            await uow.health.forget(KEPT, MOST_FORGOTTEN)
            await uow.commit()

    def _figures(self, hosts: list[HostReport]) -> dict[str, str | int]:
        return {
            "node": self._supervisor.node_id,
            "processes": len(hosts),
            "crashes": sum(host.crashes for host in hosts),
            "probeFailures": max(host.probe_failures for host in hosts),
            "memoryBytes": sum(host.memory_bytes for host in hosts),
        }
