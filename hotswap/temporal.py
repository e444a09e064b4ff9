"""How every HotSwap process talks to Temporal: one connect, the pydantic converter, the search attributes and their set-up."""

from collections.abc import Sequence

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode

from hotswap.config import TemporalSettings
from hotswap.domain.errors import Unavailable

PLUGIN = SearchAttributeKey.for_keyword("HotSwapPlugin")
VERSION = SearchAttributeKey.for_keyword("HotSwapVersion")
ENVIRONMENT = SearchAttributeKey.for_keyword("HotSwapEnvironment")
STRATEGY = SearchAttributeKey.for_keyword("HotSwapStrategy")
STATUS = SearchAttributeKey.for_keyword("HotSwapStatus")
DEPLOYMENT = SearchAttributeKey.for_keyword("HotSwapDeployment")
PIPELINE = SearchAttributeKey.for_keyword("HotSwapPipeline")

SEARCH_ATTRIBUTES = (PLUGIN, VERSION, ENVIRONMENT, STRATEGY, STATUS, DEPLOYMENT, PIPELINE)


async def connect(settings: TemporalSettings) -> Client:
    """A client, connected. Raises Unavailable when the server does not answer (a repeat helps)."""
    try:
        return await Client.connect(
            settings.address,
            namespace=settings.namespace,
            tls=settings.tls,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            data_converter=pydantic_data_converter,
        )
    except (RPCError, RuntimeError) as fault:
        raise Unavailable(f"Temporal at {settings.address} does not answer: {fault}") from fault


def runtime_with_metrics(address: str) -> Runtime:
    """A runtime that serves what Temporal's SDK counts at http://`address`/metrics, in Prometheus' units and suffixes.

    Raises ValueError when the address is none or is taken.
    """
    metrics = PrometheusConfig(
        bind_address=address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    return Runtime(telemetry=TelemetryConfig(metrics=metrics))


async def ensure_search_attributes(client: Client) -> None:
    """Register the search attributes in the client's namespace; those already there are left alone.

    Without them an upsert would hang a workflow, so every worker does this before it polls.
    """
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = [key.name for key in SEARCH_ATTRIBUTES if key.name not in listed.custom_attributes]
    if not missing:
        return
    try:
        await add_search_attributes(client, missing)
    except RPCError as fault:  # another worker was first
        if fault.status != RPCStatusCode.ALREADY_EXISTS:
            raise


async def add_search_attributes(client: Client, names: Sequence[str]) -> None:
    """Register keywords by name. Raises RPCError ALREADY_EXISTS when one is there."""
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=client.namespace,
            search_attributes=dict.fromkeys(names, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD),
        )
    )
