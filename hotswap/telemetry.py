"""How every HotSwap process logs and traces: JSON lines on stderr, spans over OTLP/HTTP when a collector is named.

Neighbours: entry points (worker, api, hotswap.node) call configure_logging and configure_tracing once at start.
A log record carries the trace it belongs to, and whichever of FIELDS the caller gave with `extra=` or
hotswap.log_fields.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider, create_tracer_provider

from hotswap.config import TelemetrySettings
from hotswap.log_fields import FIELDS, bound_log_fields

logger = logging.getLogger(__name__)

MAX_TEXT = 8192
"""Longest message or traceback in one record, in characters: outside text ends up in messages, and a log line is
read by machines that cut at 16 KiB (container runtimes)."""

EXPORT_PATIENCE = 3.0
"""Seconds for a collector to take a batch, its retries included; then the batch is dropped. Also how long an end may take."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, trace_id and span_id ("" outside of a trace), FIELDS where known."""

    def __init__(self, service: str, facts: Mapping[str, str] | None = None) -> None:
        """`facts`: fields that hold for the whole process, such as its node."""
        super().__init__()
        self._service = service
        self._facts = dict(facts or {})

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": _bounded(_message(record)),
            "trace_id": str(record.__dict__.get("trace_id", "")),
            "span_id": str(record.__dict__.get("span_id", "")),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid and not line["trace_id"]:  # what a plugin says of its call comes first
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        bound = bound_log_fields()
        for name in FIELDS:
            value = record.__dict__.get(name, bound.get(name, self._facts.get(name)))
            if value is not None:
                line[name] = str(value)
        if record.exc_info:
            line["error"] = _bounded(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure_logging(
    telemetry: TelemetrySettings, service: str, stream: TextIO | None = None, facts: Mapping[str, str] | None = None
) -> None:
    """Send every record of this process to stderr (or `stream`) as JSON. A second call replaces the first.

    `service` is api, worker, node or embedded, `facts` are fields of every record. Libraries that install their own handlers (uvicorn) must be started
    with log_config=None, so that their records come here.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service, facts))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(telemetry.log_level)
    # Their INFO is one line for each request or task; the level still lets DEBUG through when asked for.
    chatty = logging.WARNING if telemetry.log_level == "INFO" else logging.getLevelName(telemetry.log_level)
    for name in ("httpx", "httpcore", "alembic", "uvicorn.access", "urllib3"):
        logging.getLogger(name).setLevel(chatty)
    logging.captureWarnings(True)


class ExportOutages(SpanExporter):
    """Logs the beginning and the end of a collector's absence, once each. Spans of the meantime are lost."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            logger.warning("the collector at %s takes no spans; they are dropped until it does", self._endpoint)
        elif self._away and not away:
            logger.info("the collector at %s takes spans again", self._endpoint)
        self._away = away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


@dataclass(frozen=True)
class Tracing:
    """A process's tracing. `exported`: whether spans leave it at all."""

    provider: ReplaySafeTracerProvider
    resource: Resource
    sampling_rate: float
    processor: BatchSpanProcessor | None = None

    @property
    def exported(self) -> bool:
        return self.processor is not None

    def record(self, span: ReadableSpan) -> None:
        """Export a span that was made without a tracer (hotswap.node.call_spans)."""
        if self.processor is not None:
            self.processor.on_end(span)

    def shutdown(self) -> None:
        """Send what is still in the batch. Takes EXPORT_PATIENCE when the collector is away."""
        self.provider.shutdown()


def configure_tracing(telemetry: TelemetrySettings, service: str, instance: str = "") -> Tracing:
    """Make the process's tracer provider and set it globally; spans leave only when `otlp_endpoint` is set.

    Without an endpoint nothing is recorded either; traces still have ids, which logs and errors name. Replay-safe, so
    that temporalio's interceptor can use it in a worker. A span is sampled when its parent is, a root by `sampling_rate`.
    Call shutdown() on it before the process ends. `instance`: which of several (a node's id).
    """
    resource = Resource.create(
        {
            "service.name": f"hotswap-{service}",
            "service.namespace": "hotswap",
            "service.instance.id": instance or f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    provider = create_tracer_provider(
        sampler=ParentBased(TraceIdRatioBased(telemetry.sampling_rate)) if telemetry.otlp_endpoint else ALWAYS_OFF,
        resource=resource,
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_attributes=32, max_events=8, max_links=16, max_attribute_length=256),
    )
    processor = None
    if telemetry.otlp_endpoint:
        exporter = OTLPSpanExporter(
            endpoint=f"{telemetry.otlp_endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_PATIENCE
        )
        processor = BatchSpanProcessor(ExportOutages(exporter, telemetry.otlp_endpoint))
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # two lines for each batch that fails
        provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return Tracing(provider, resource, telemetry.sampling_rate, processor)


def _message(record: logging.LogRecord) -> str:
    """The message, also when a caller's arguments do not fit its format: a log call never breaks the work."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args!r}"


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"
