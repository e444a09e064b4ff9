"""Writes down what runs already: a deployment that Temporal has taken is answered whether or not PostgreSQL is there.

Neighbour: api.services.deployments says what to write. The workflow opens a row itself, but only once a worker has it;
until then nobody finds the deployment, and who asked for it is nowhere on record but here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

from hotswap.domain.errors import Unavailable
from hotswap.ports.records import UnitOfWork, UnitOfWorkFactory

log = logging.getLogger(__name__)

PATIENCE, PAUSE = 5.0, 0.1
"""Seconds that a caller waits for the record, and between two tries: a killed PostgreSQL is back in 0.3 to 1.5 s."""

LATE_PATIENCE, LATE_PAUSE = 3600.0, 0.5
"""The same after the caller has been answered."""

Record = Callable[[UnitOfWork, bool], Awaitable[None]]
"""Makes the record in a unit of work. The flag: an earlier try may have been committed, only its answer lost."""


class Recorder:
    """Belongs to one event loop."""

    def __init__(self, unit_of_work: UnitOfWorkFactory) -> None:
        self._unit_of_work = unit_of_work
        self._late: dict[asyncio.Task[None], str] = {}

    async def commit(self, record: Record, deployment_id: str) -> None:
        """Returns when it is recorded or after PATIENCE; then it is tried on, beside what else is done."""
        if not await self._tried(record, PATIENCE, PAUSE, again=False):
            # It runs: to refuse now would be a lie.
            log.warning("deployment %s runs, but PostgreSQL is away: its request is recorded later", deployment_id)
            task = asyncio.create_task(self._later(record, deployment_id), name=f"record {deployment_id}")
            self._late[task] = deployment_id
            task.add_done_callback(self._late.pop)

    async def close(self) -> None:
        """Give up what could not be recorded so far, and say so."""
        late = dict(self._late)
        for task, deployment_id in late.items():
            log.error("the request for deployment %s was not recorded: the api is stopping", deployment_id)
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _later(self, record: Record, deployment_id: str) -> None:
        try:
            recorded = await self._tried(record, LATE_PATIENCE, LATE_PAUSE, again=True)
        except Exception:
            log.exception("the request for deployment %s was not recorded", deployment_id)
            return
        if recorded:
            log.info("the request for deployment %s is on record now", deployment_id)
        else:
            log.error("the request for deployment %s was not recorded: PostgreSQL stayed away", deployment_id)

    async def _tried(self, record: Record, patience: float, pause: float, *, again: bool) -> bool:
        until = monotonic() + patience
        while True:
            try:
                async with self._unit_of_work() as uow:
                    await record(uow, again)
                    await uow.commit()
            except Unavailable:
                if monotonic() >= until:
                    return False
            else:
                return True
            again = True
            await asyncio.sleep(pause)
