"""Makes a Temporal namespace fit for HotSwap: there, with its retention, with its search attributes. Repeats change nothing.

`python -m worker --set-up` calls it, once for an installation. Where the server does not let us (Temporal Cloud gives such
rights to its own console and tools only), the fault says what to do there.
"""

import asyncio
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from hotswap import temporal
from hotswap.domain.errors import Unavailable

DEFAULT_RETENTION = timedelta(days=30)

KNOWN_WITHIN = timedelta(seconds=60)
"""A new namespace is known to every part of the server within its cache's life, 10 s by default."""

_NOT_OURS = frozenset({RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.UNAUTHENTICATED})


async def set_up(client: Client, retention: timedelta | None) -> list[str]:
    """What was done, a sentence each. Without `retention` a namespace keeps its own; a new one gets 30 days.

    Raises Unavailable when the server does not answer or does not let us.
    """
    name = client.namespace
    try:
        done = await _namespace(client, retention)
        missing = await _search_attributes(client)
    except RPCError as fault:
        raise Unavailable(_refused(name, fault)) from fault
    if missing:
        done.append(f"search attributes registered: {', '.join(missing)}")
    return done or [f"namespace '{name}' was set up already; nothing was changed"]


async def _namespace(client: Client, retention: timedelta | None) -> list[str]:
    name = client.namespace
    try:
        told = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=name))
    except RPCError as fault:
        if fault.status != RPCStatusCode.NOT_FOUND:
            raise
        keeps = retention or DEFAULT_RETENTION
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=_duration(keeps))
        )
        return [f"namespace '{name}' made; closed rollouts are kept for {keeps.days} days"]
    if retention is None or told.config.workflow_execution_retention_ttl.ToTimedelta() == retention:
        return []
    await client.workflow_service.update_namespace(
        UpdateNamespaceRequest(
            namespace=name, config=NamespaceConfig(workflow_execution_retention_ttl=_duration(retention))
        )
    )
    return [f"namespace '{name}' keeps closed rollouts for {retention.days} days from now on"]


async def _search_attributes(client: Client) -> list[str]:
    """Those that were missing. A namespace that was just made is not known everywhere at once."""
    deadline = asyncio.get_running_loop().time() + KNOWN_WITHIN.total_seconds()
    while True:
        try:
            return await temporal.ensure_search_attributes(client)
        except RPCError as fault:
            if fault.status != RPCStatusCode.NOT_FOUND or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(0.2)


def _duration(span: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(span)
    return made


def _refused(namespace: str, fault: RPCError) -> str:
    if fault.status in _NOT_OURS:
        keys = ", ".join(key.name for key in temporal.SEARCH_ATTRIBUTES)
        return (
            f"Temporal does not let us set up namespace '{namespace}' ({fault.message}). On Temporal Cloud make it in the "
            f"console (or with tcld), with a retention of 30 days and these search attributes of type Keyword: {keys}"
        )
    return f"Temporal did not set up namespace '{namespace}': {fault.message}"
