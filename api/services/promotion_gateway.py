"""Freezes and pipelines through Temporal: signals to held rollouts, pipelines as workflows. Shares the rollouts' connection.

Neighbours: api.services.promotions is the interface, api.services.rollout_gateway holds the connection.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from temporalio.client import (
    RPCTimeoutOrCancelledError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from api.services.rollout_gateway import RPC_TIMEOUT, STATUS_TIMEOUT, RolloutGateway, _translated
from api.services.rollouts import Handle
from hotswap import temporal
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.errors import Unavailable
from hotswap.domain.pipeline import PipelineProgress, PipelineRequest, PipelineStatus, pipeline_workflow_id
from workflows import launch
from workflows.messages import Command, WorkflowNames
from workflows.pipeline_messages import PIPELINE_WORKFLOW, PipelineCommandResult

log = logging.getLogger(__name__)

WAKE_PATIENCE = timedelta(seconds=5)
WAKE_AT_ONCE = 20


class TemporalPromotions:
    def __init__(self, gateway: RolloutGateway, settings: TemporalSettings) -> None:
        self._gateway = gateway
        self._settings = settings

    async def wake(self, workflow_ids: Sequence[str]) -> None:
        if not workflow_ids:
            return
        free = asyncio.Semaphore(WAKE_AT_ONCE)

        async def tell(workflow_id: str) -> None:
            async with free:
                try:
                    handle = client.get_workflow_handle(workflow_id)
                    await handle.signal(WorkflowNames.FREEZES_CHANGED, rpc_timeout=STATUS_TIMEOUT)
                except (RPCError, RPCTimeoutOrCancelledError) as fault:
                    log.info("%s was not told that freezes changed, it will ask by itself: %s", workflow_id, fault)

        try:
            async with asyncio.timeout(WAKE_PATIENCE.total_seconds()):
                client = await self._gateway.connected()
                await asyncio.gather(*(tell(workflow_id) for workflow_id in workflow_ids))
        except (TimeoutError, Unavailable) as fault:
            log.warning("not every held rollout was told that freezes changed, they will ask by themselves: %r", fault)

    async def start(self, request: PipelineRequest) -> Handle:
        workflow_id = pipeline_workflow_id(request.plugin, request.pipeline_id)
        client = await self._gateway.connected()
        way = " -> ".join(stage.environment for stage in request.stages)
        try:
            with _translated("start the pipeline", self._settings.address):
                handle = await client.start_workflow(
                    PIPELINE_WORKFLOW,
                    request,
                    id=workflow_id,
                    task_queue=self._settings.task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    search_attributes=TypedSearchAttributes(
                        [
                            SearchAttributePair(temporal.PLUGIN, request.plugin),
                            SearchAttributePair(temporal.VERSION, request.version),
                            SearchAttributePair(temporal.STATUS, str(PipelineStatus.PENDING)),
                            SearchAttributePair(temporal.PIPELINE, request.pipeline_id),
                        ]
                    ),
                    static_summary=f"{request.plugin} {request.version}: {way}",
                    static_details=f"**Started by** {request.initiated_by}\n\n**Reason** {request.reason or '(none given)'}",
                    task_timeout=launch.TASK_TIMEOUT,
                    rpc_timeout=RPC_TIMEOUT,
                )
        except WorkflowAlreadyStartedError as known:  # the id is this pipeline's own
            return Handle(workflow_id, known.first_run_id or known.run_id or "")
        assert handle.first_execution_run_id is not None  # a start always names its run
        return Handle(workflow_id, handle.first_execution_run_id)

    async def command(
        self, handle: Handle, name: str, command: Command, update_id: str | None
    ) -> PipelineCommandResult:
        return await self._gateway.command_of(handle, name, command, update_id, PipelineCommandResult)

    async def status(self, handle: Handle) -> PipelineProgress | None:
        try:
            async with asyncio.timeout(STATUS_TIMEOUT.total_seconds()):
                client = await self._gateway.connected()
                told: PipelineProgress = await client.get_workflow_handle(handle.workflow_id).query(
                    WorkflowNames.STATUS, result_type=PipelineProgress, rpc_timeout=STATUS_TIMEOUT
                )
            return told
        except (
            RPCError,
            RPCTimeoutOrCancelledError,
            TimeoutError,
            Unavailable,
            WorkflowQueryFailedError,
            WorkflowQueryRejectedError,
        ) as fault:
            log.debug("%s does not tell its status: %s", handle.workflow_id, fault)
            return None
