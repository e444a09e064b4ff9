"""Reaches the drift watch of an environment (workflows.drift) through Temporal; starts it when no worker has yet.

Neighbour: api.services.rollout_gateway, whose connection it shares.
"""

import asyncio
from datetime import timedelta

from temporalio.client import RPCTimeoutOrCancelledError, WorkflowUpdateFailedError
from temporalio.service import RPCError

from api.services.rollout_gateway import RolloutGateway
from hotswap.config import DriftSettings
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.base import bounded
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import Unavailable
from workflows.drift import DriftPolicy, DriftRepaired, RepairCommand
from workflows.drift_start import keep_drift_watch

REPAIR_PATIENCE = timedelta(seconds=25)
"""For one repair: two looks of seconds, and what nodes load in between. It goes on after that, only the answer is late."""


class TemporalDriftDesk:
    def __init__(self, gateway: RolloutGateway, temporal: TemporalSettings, drift: DriftSettings) -> None:
        self._gateway = gateway
        self._temporal = temporal
        self._policy = DriftPolicy(interval=drift.interval, repair=drift.repair)

    async def repair(self, environment: Environment, command: RepairCommand) -> DriftRepaired:
        client = await self._gateway.connected()
        try:
            async with asyncio.timeout(REPAIR_PATIENCE.total_seconds()):
                watch = await keep_drift_watch(client, self._temporal.task_queue, environment, self._policy)
                done: DriftRepaired = await watch.execute_update("repair", command, result_type=DriftRepaired)
        except WorkflowUpdateFailedError as fault:
            raise Unavailable(f"nothing was repaired: {bounded(str(fault.cause))}") from None
        except (RPCError, RPCTimeoutOrCancelledError, TimeoutError) as fault:
            raise Unavailable(
                f"the repair of {environment} was not answered ({type(fault).__name__}); it may still go on: look at the "
                "drift again, and see that Temporal and a worker run"
            ) from None
        return done
