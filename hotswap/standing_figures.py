"""How many deployments and sandbox sessions there are now, asked of PostgreSQL and told on the worker's page.

A rollout lives in Temporal and in no process, so nobody can count them on the way: they are counted where they are on
record. Every worker tells the same, so a dashboard takes the greatest, not the sum.
"""

import asyncio
import logging
from datetime import timedelta

from temporalio.common import MetricMeter

from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from hotswap.domain.lifecycle import TERMINAL, DeploymentStatus
from hotswap.ports.records import UnitOfWorkFactory

log = logging.getLogger(__name__)

INTERVAL = timedelta(seconds=5)
"""Below Prometheus' usual 15 s between two scrapes; two counts by index."""

STANDING = tuple(sorted(set(DeploymentStatus) - TERMINAL))


class StandingFigures:
    def __init__(self, unit_of_work: UnitOfWorkFactory, meter: MetricMeter, interval: timedelta = INTERVAL) -> None:
        self._unit_of_work = unit_of_work
        self._interval = interval.total_seconds()
        self._deployments = meter.create_gauge("deployments_in_progress", "Deployments that have not ended.")
        self._sandboxes = meter.create_gauge("sandbox_instances", "Sandbox sessions that have not ended.")
        self._away = False

    async def run(self) -> None:
        """For ever. While PostgreSQL is away the figures stay as they were last seen."""
        while True:
            try:
                await self.look()
            except Unavailable as fault:
                if not self._away:
                    log.warning("deployments and sandboxes are not counted for now: %s", fault.message)
                self._away = True
            else:
                self._away = False
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Every environment and status gets its figure, so that one that has none any more says 0."""
        async with self._unit_of_work() as uow:
            deployments, sandboxes = await uow.deployments.standing(), await uow.sandboxes.live()
        for environment in map(str, Environment):
            self._sandboxes.set(sandboxes.get(environment, 0), {"environment": environment})
            for status in map(str, STANDING):
                labels = {"environment": environment, "status": status}
                self._deployments.set(deployments.get((environment, status), 0), labels)
