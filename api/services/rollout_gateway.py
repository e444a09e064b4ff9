"""The sole user of the Temporal client in the facade: deployments as workflows, commands as validated updates.

Neighbours: workflows.messages names the workflows and messages, hotswap.temporal connects, api.services.deployments
decides what is asked.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import TypeVar

from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from api.services.rollouts import Handle, RolloutOver
from hotswap import temporal
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.base import bounded
from hotswap.domain.deployment import DeploymentProgress, DeploymentRequest
from hotswap.domain.errors import Conflict, DeploymentRunning, Forbidden, HotSwapError, InvalidInput, Unavailable
from hotswap.domain.ids import deployment_workflow_id, queued_workflow_id
from hotswap.domain.lifecycle import TERMINAL
from workflows import launch
from workflows.messages import QUEUED_WORKFLOW, WORKFLOW_OF_STRATEGY, Command, CommandResult, WorkflowNames

log = logging.getLogger(__name__)

R = TypeVar("R")

RPC_TIMEOUT = timedelta(seconds=5)
COMMAND_TIMEOUT = timedelta(seconds=10)
STATUS_TIMEOUT = timedelta(seconds=1)
CLOSING_PATIENCE, CLOSING_PAUSE = 5.0, 0.05
"""Seconds for a deployment that has ended to leave its place (it records, hands over, tells who waits: 20 to 100 ms), and
between two tries: who has read `Completed` may deploy again at once and must not be told that it is running."""
CONNECT_PAUSE = 1.0
"""Seconds after a failed connect in which the next caller hears of it at once instead of trying again."""

_AWAY = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.UNKNOWN,
    }
)
"""Answers after which a repeat may help. The rest (an invalid argument, no permission) are faults of ours: 500."""

_REFUSALS: dict[str, type[HotSwapError]] = {"Forbidden": Forbidden, "InvalidInput": InvalidInput}
"""Types a validator of workflows.deployment gives its refusals; every other one is a Conflict."""


class RolloutGateway:
    """Connects on first use and again until it holds, so that the api starts while Temporal is away."""

    def __init__(
        self,
        settings: TemporalSettings,
        connect: Callable[[TemporalSettings], Awaitable[Client]] = temporal.connect,
        command_timeout: timedelta = COMMAND_TIMEOUT,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._command_timeout = command_timeout
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._failed: tuple[float, str] | None = None

    async def start(self, request: DeploymentRequest) -> Handle:
        workflow_id = deployment_workflow_id(request.environment, request.plugin)
        client = await self._connected()
        closing_until = monotonic() + CLOSING_PATIENCE
        ended = 0
        while ended < 3:  # the holder may end while we ask who it is; then the place is free
            try:
                with _translated("start the deployment", self._settings.address):
                    started = await self._start(
                        client,
                        workflow_id,
                        request,
                        WORKFLOW_OF_STRATEGY[request.strategy],
                        WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    )
                return Handle(workflow_id, started)
            except WorkflowAlreadyStartedError as held:
                holder = await self._holder(client, workflow_id, held.first_run_id or held.run_id)
            if holder is None:
                ended += 1
                continue
            running, run_id, closing = holder
            if running == request.deployment_id:
                return Handle(workflow_id, run_id)
            if closing and monotonic() < closing_until:
                await asyncio.sleep(CLOSING_PAUSE)
                continue
            raise DeploymentRunning(request.environment, request.plugin, running)
        raise Unavailable(f"deployments of {request.plugin} to {request.environment} come and go; try again")

    async def enqueue(self, request: DeploymentRequest) -> Handle:
        workflow_id = queued_workflow_id(request.environment, request.plugin, request.deployment_id)
        client = await self._connected()
        try:
            with _translated("queue the deployment", self._settings.address):
                run_id = await self._start(
                    client, workflow_id, request, QUEUED_WORKFLOW, WorkflowIDReusePolicy.REJECT_DUPLICATE
                )
        except WorkflowAlreadyStartedError as known:  # the id is this deployment's own
            run_id = known.first_run_id or known.run_id or ""
        return Handle(workflow_id, run_id)

    async def _start(
        self,
        client: Client,
        workflow_id: str,
        request: DeploymentRequest,
        workflow_type: str,
        reuse: WorkflowIDReusePolicy,
    ) -> str:
        handle = await client.start_workflow(
            workflow_type,
            request,
            id=workflow_id,
            task_queue=self._settings.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=reuse,
            memo={launch.MEMO_DEPLOYMENT: request.deployment_id},
            search_attributes=launch.search_attributes(request),
            static_summary=launch.summary(request),
            static_details=launch.details(request),
            task_timeout=launch.TASK_TIMEOUT,
            rpc_timeout=RPC_TIMEOUT,
        )
        assert handle.first_execution_run_id is not None  # a start always names its run
        return handle.first_execution_run_id

    async def _holder(self, client: Client, workflow_id: str, run_id: str | None) -> tuple[str, str, bool] | None:
        """Deployment, first run, and whether it only tidies up, of the workflow of that id; None when it ended meanwhile."""
        with _translated("ask which deployment is running", self._settings.address):
            try:
                held = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
            except RPCError as fault:
                if fault.status == RPCStatusCode.NOT_FOUND:
                    return None
                raise
        if held.status != WorkflowExecutionStatus.RUNNING:
            return None
        name = await held.memo_value(launch.MEMO_DEPLOYMENT, default="", type_hint=str)
        name = name or held.typed_search_attributes.get(temporal.DEPLOYMENT) or held.run_id
        closing = held.typed_search_attributes.get(temporal.STATUS) in TERMINAL
        return name, run_id or held.run_id, closing

    async def command(self, handle: Handle, name: str, command: Command, update_id: str | None) -> CommandResult:
        return await self.command_of(handle, name, command, update_id, CommandResult)

    async def command_of(
        self, handle: Handle, name: str, command: Command, update_id: str | None, answer: type[R]
    ) -> R:
        """`command` for any workflow that takes it, and what it answers."""
        client = await self._connected()
        # By first run and without a run id: the deployment may have continued as new since.
        target = client.get_workflow_handle(handle.workflow_id, first_execution_run_id=handle.run_id)
        try:
            with _translated(f"send {name}", self._settings.address):
                async with asyncio.timeout(self._command_timeout.total_seconds()):
                    result: R = await target.execute_update(
                        name, command, id=update_id, result_type=answer, rpc_timeout=self._command_timeout
                    )
            return result
        except WorkflowUpdateFailedError as refusal:
            raise _refusal(refusal) from None
        except (WorkflowUpdateRPCTimeoutOrCancelledError, RPCTimeoutOrCancelledError, TimeoutError):
            raise Unavailable(
                f"'{name}' was sent, but no worker answered within {self._command_timeout.total_seconds():g} s, so it is "
                "unknown whether it will be obeyed; see that a worker runs, look at the deployment, and repeat the "
                "command with the same Idempotency-Key"
            ) from None
        except RPCError as fault:
            if fault.status == RPCStatusCode.FAILED_PRECONDITION:
                raise Unavailable(
                    f"{handle.workflow_id} takes no '{name}' now, because its workflow task fails: read the worker's log, "
                    "mend the worker, and repeat the command"
                ) from None
            if fault.status != RPCStatusCode.NOT_FOUND:
                raise
            execution = await self._execution(client, handle)
            raise RolloutOver(f"nothing runs under {handle.workflow_id} any more", execution) from None

    async def _execution(self, client: Client, handle: Handle) -> str:
        """Temporal's word for the run's state, "" when it does not know the run either."""
        try:
            found = await client.get_workflow_handle(handle.workflow_id, run_id=handle.run_id).describe(
                rpc_timeout=RPC_TIMEOUT
            )
        except RPCError as fault:
            log.info("cannot describe %s: %s", handle.workflow_id, fault.message)
            return ""
        return found.status.name.replace("_", " ").title() if found.status else ""

    async def status(self, handle: Handle) -> DeploymentProgress | None:
        try:
            async with asyncio.timeout(STATUS_TIMEOUT.total_seconds()):
                client = await self._connected()
                told: DeploymentProgress = await client.get_workflow_handle(handle.workflow_id).query(
                    WorkflowNames.STATUS, result_type=DeploymentProgress, rpc_timeout=STATUS_TIMEOUT
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

    async def ready(self) -> None:
        client = await self._connected()
        with _translated("answer", self._settings.address):
            healthy = await client.service_client.check_health(timeout=RPC_TIMEOUT)
        if not healthy:
            raise Unavailable(f"Temporal at {self._settings.address} says that it does not serve")

    async def connected(self) -> Client:
        """The client, for the other services that speak to workflows. Raises Unavailable."""
        return await self._connected()

    async def _connected(self) -> Client:
        if self._client is not None:
            return self._client
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect_now()
            return self._client

    async def _connect_now(self) -> Client:
        address = self._settings.address
        if self._failed is not None and monotonic() - self._failed[0] < CONNECT_PAUSE:
            raise Unavailable(self._failed[1])
        try:
            with _translated("connect", address):
                async with asyncio.timeout(RPC_TIMEOUT.total_seconds()):
                    client = await self._connect(self._settings)
                    # Starting with an unknown attribute is refused, and no worker may have registered them yet.
                    await temporal.ensure_search_attributes(client)
        except (TimeoutError, Unavailable) as fault:
            message = fault.message if isinstance(fault, Unavailable) else f"Temporal at {address} does not answer"
            self._failed = (monotonic(), message)
            raise Unavailable(message) from None
        log.info("connected to Temporal at %s, namespace %s", address, self._settings.namespace)
        return client


@contextmanager
def _translated(doing: str, address: str) -> Iterator[None]:
    """Turns 'Temporal is away' into Unavailable; other answers pass."""
    try:
        yield
    except RPCError as fault:
        if fault.status in _AWAY:
            raise Unavailable(
                f"Temporal at {address} could not {doing} ({fault.status.name}); repeat in a moment with the same "
                "Idempotency-Key"
            ) from fault
        raise


def _refusal(error: WorkflowUpdateFailedError) -> HotSwapError:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return _REFUSALS.get(cause.type or "", Conflict)(cause.message)
    return Conflict(bounded(str(cause)))
