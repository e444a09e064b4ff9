"""Keeps one drift watch running for each environment: workers start them, the facade makes sure before it asks one."""

from collections.abc import Iterable

from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy

from hotswap import temporal
from hotswap.domain.deployment import Environment
from hotswap.domain.ids import drift_workflow_id
from workflows.drift import DriftPolicy, DriftState, DriftWatch


async def keep_drift_watch(
    client: Client, task_queue: str, environment: Environment, policy: DriftPolicy
) -> WorkflowHandle[DriftWatch, None]:
    """Start the environment's watch, or tell the running one the policy. Raises RPCError when Temporal does not answer."""
    return await client.start_workflow(
        DriftWatch.run,
        DriftState(environment=environment, policy=policy),
        id=drift_workflow_id(environment),
        task_queue=task_queue,
        start_signal="configure",
        start_signal_args=[policy],
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=TypedSearchAttributes([SearchAttributePair(temporal.ENVIRONMENT, str(environment))]),
        static_summary=f"drift in {environment}",
    )


async def keep_drift_watches(
    client: Client, task_queue: str, policy: DriftPolicy, environments: Iterable[Environment] = tuple(Environment)
) -> None:
    """One for each environment. Raises RPCError."""
    for environment in environments:
        await keep_drift_watch(client, task_queue, environment, policy)
