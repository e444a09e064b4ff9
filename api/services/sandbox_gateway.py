"""What sandbox sessions need from Temporal, as an interface and through Temporal. Shares the rollouts' connection.

Neighbours: workflows.sandbox_session is at the other end, api.services.rollout_gateway holds the connection.
"""

from typing import Protocol

from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from api.services.rollout_gateway import RPC_TIMEOUT, RolloutGateway, _translated
from api.services.rollouts import Handle
from hotswap import temporal
from hotswap.config_temporal import TemporalSettings
from hotswap.domain.sandbox import SandboxSession
from workflows import launch
from workflows.messages import Command
from workflows.sandbox_messages import SANDBOX_WORKFLOW, SandboxAnswer, SessionOrder


class Sandboxes(Protocol):
    async def start(self, session: SandboxSession) -> str:
        """Start the session's workflow and return its run; the same session again gives the run it has. Raises Unavailable."""
        ...

    async def command(
        self, session: SandboxSession, name: str, command: Command, update_id: str | None
    ) -> SandboxAnswer:
        """Send a command and wait until it was obeyed; raises as Rollouts.command does."""
        ...


class TemporalSandboxes:
    def __init__(self, gateway: RolloutGateway, settings: TemporalSettings) -> None:
        self._gateway = gateway
        self._settings = settings

    async def start(self, session: SandboxSession) -> str:
        ref = session.artifact
        client = await self._gateway.connected()
        order = SessionOrder(
            sandbox_id=session.sandbox_id,
            plugin=ref.plugin,
            version=ref.version,
            environment=session.environment,
            expires_at=session.expires_at,
            created_by=session.created_by,
        )
        try:
            with _translated("start the sandbox", self._settings.address):
                handle = await client.start_workflow(
                    SANDBOX_WORKFLOW,
                    order,
                    id=session.workflow_id,
                    task_queue=self._settings.task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    search_attributes=TypedSearchAttributes(
                        [
                            SearchAttributePair(temporal.PLUGIN, ref.plugin),
                            SearchAttributePair(temporal.VERSION, ref.version),
                            SearchAttributePair(temporal.ENVIRONMENT, str(session.environment)),
                            SearchAttributePair(temporal.STATUS, str(session.status)),
                        ]
                    ),
                    static_summary=f"sandbox of {ref.plugin} {ref.version} in {session.environment}",
                    static_details=f"**Made by** {session.created_by}\n\n**Digest** {ref.digest}",
                    task_timeout=launch.TASK_TIMEOUT,
                    rpc_timeout=RPC_TIMEOUT,
                )
        except WorkflowAlreadyStartedError as known:  # the id is this session's own
            return known.first_run_id or known.run_id or ""
        return handle.first_execution_run_id or ""

    async def command(
        self, session: SandboxSession, name: str, command: Command, update_id: str | None
    ) -> SandboxAnswer:
        handle = Handle(session.workflow_id, session.run_id)
        return await self._gateway.command_of(handle, name, command, update_id, SandboxAnswer)
