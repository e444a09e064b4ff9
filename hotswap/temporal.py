"""How every HotSwap process talks to Temporal: one connect, its TLS and its converter, the
search attributes and their set-up. Neighbours: hotswap.payloads encrypts, hotswap.temporal_setup makes a namespace fit."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client, Interceptor
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from hotswap.config_temporal import TemporalSettings
from hotswap.domain.errors import Unavailable
from hotswap.payloads import EncryptingCodec

PLUGIN = SearchAttributeKey.for_keyword("HotSwapPlugin")
VERSION = SearchAttributeKey.for_keyword("HotSwapVersion")
ENVIRONMENT = SearchAttributeKey.for_keyword("HotSwapEnvironment")
STRATEGY = SearchAttributeKey.for_keyword("HotSwapStrategy")
STATUS = SearchAttributeKey.for_keyword("HotSwapStatus")
DEPLOYMENT = SearchAttributeKey.for_keyword("HotSwapDeployment")
PIPELINE = SearchAttributeKey.for_keyword("HotSwapPipeline")

SEARCH_ATTRIBUTES = (PLUGIN, VERSION, ENVIRONMENT, STRATEGY, STATUS, DEPLOYMENT, PIPELINE)


async def connect(settings: TemporalSettings) -> Client:
    """A client, connected. Raises Unavailable when the server does not answer or refuses (a repeat helps, mostly).

    After hotswap.telemetry.configure_tracing it, and every worker made with it, carries traces along in Temporal's headers.
    """
    try:
        return await Client.connect(
            settings.address,
            namespace=settings.namespace,
            tls=tls_config(settings),
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            data_converter=data_converter(settings),
            interceptors=_carriers(),
        )
    except (RPCError, RuntimeError) as fault:
        raise Unavailable(f"Temporal at {settings.address} does not answer: {fault}{_tls_hint(settings)}") from fault


def tls_config(settings: TemporalSettings) -> TLSConfig | bool:
    """The machine's authorities unless others are set; our certificate where one is set (mTLS)."""
    if not settings.tls:
        return False
    key = settings.tls_client_key
    return TLSConfig(
        server_root_ca_cert=settings.tls_ca.encode() or None,
        domain=settings.tls_server_name or None,
        client_cert=settings.tls_client_cert.encode() or None,
        client_private_key=key.get_secret_value().encode() if key is not None else None,
    )


def data_converter(settings: TemporalSettings) -> DataConverter:
    """The pydantic converter; with payload keys, everything that a history would show is encrypted, faults included."""
    keys = settings.payload_key_bytes()
    if not keys:
        return pydantic_data_converter
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptingCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def _tls_hint(settings: TemporalSettings) -> str:
    """The transport says little of a handshake that failed; these are what makes one fail."""
    if not settings.tls:
        return "; a server that speaks TLS needs HOTSWAP_TEMPORAL__TLS=true"
    client = (
        "our HOTSWAP_TEMPORAL__TLS_CLIENT_CERT"
        if settings.tls_client_cert
        else "that it asks for no client certificate"
    )
    return (
        f"; should the handshake fail, check HOTSWAP_TEMPORAL__TLS_CA (who signed its certificate), __TLS_SERVER_NAME "
        f"(the name in it) and {client}"
    )


def _carriers() -> list[Interceptor]:
    """They make no spans: ours say more (hotswap.tracing). Imported late: workflows, which need the attributes above, must
    not import the SDK of OpenTelemetry."""
    from opentelemetry import trace
    from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor, ReplaySafeTracerProvider

    traced = isinstance(trace.get_tracer_provider(), ReplaySafeTracerProvider)
    return [OpenTelemetryInterceptor()] if traced else []


def make_runtime(
    metrics_address: str = "",
    histogram_limits: Mapping[str, Sequence[float]] | None = None,
    worker_beat: timedelta = timedelta(minutes=1),
) -> Runtime:
    """What Temporal's SDK runs on in this process: its log among ours, its figures (and those that our workflows add)
    at http://`metrics_address`/metrics in Prometheus' units and suffixes, unless that is "".

    `histogram_limits`: upper bounds of buckets by histogram, without its unit. `worker_beat`: how often workers tell the
    server that they live. Raises ValueError when the address is none or is taken. Make it before the first client.
    """
    metrics = None
    if metrics_address:
        metrics = PrometheusConfig(
            bind_address=metrics_address,
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides={name: list(limits) for name, limits in (histogram_limits or {}).items()},
        )
    core = LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
    )
    return Runtime(telemetry=TelemetryConfig(logging=core, metrics=metrics), worker_heartbeat_interval=worker_beat)


async def ensure_search_attributes(client: Client) -> list[str]:
    """Register the search attributes in the client's namespace; those already there are left alone. Which were missing.

    Without them an upsert would hang a workflow, so every worker does this before it polls.
    """
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = [key.name for key in SEARCH_ATTRIBUTES if key.name not in listed.custom_attributes]
    if not missing:
        return []
    try:
        await add_search_attributes(client, missing)
    except RPCError as fault:  # another worker was first
        if fault.status != RPCStatusCode.ALREADY_EXISTS:
            raise
    return missing


async def add_search_attributes(client: Client, names: Sequence[str]) -> None:
    """Register keywords by name. Raises RPCError ALREADY_EXISTS when one is there."""
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(
            namespace=client.namespace,
            search_attributes=dict.fromkeys(names, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD),
        )
    )
