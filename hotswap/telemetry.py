"""How every HotSwap process logs and traces: JSON lines on stderr, spans over OTLP/HTTP when a collector is named.

Neighbours: entry points (worker, api, hotswap.node) call configure_logging and configure_tracing once at start.
A log record carries the trace it belongs to, and whichever of FIELDS the caller gave with `extra=` or log_fields().
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider, create_tracer_provider

from hotswap.config import TelemetrySettings

FIELDS = ("plugin", "version", "tenant", "environment", "deployment", "node")
"""What a record may say beside its message (spec section 9)."""

MAX_TEXT = 8192
"""Longest message or traceback in one record, in characters: outside text ends up in messages, and a log line is
read by machines that cut at 16 KiB (container runtimes)."""

_bound: ContextVar[dict[str, str]] = ContextVar("hotswap_log_fields", default={})  # noqa: B039 - replaced, never changed


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Every record logged inside carries these fields, also in tasks started inside. Names outside FIELDS are a bug."""
    unknown = sorted(fields.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not a log field; use one of {', '.join(FIELDS)}")
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, trace_id, span_id and FIELDS where known."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": _bounded(_message(record)),
            "trace_id": str(record.__dict__.get("trace_id", "")),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        bound = _bound.get()
        for name in FIELDS:
            value = record.__dict__.get(name, bound.get(name))
            if value is not None:
                line[name] = str(value)
        if record.exc_info:
            line["error"] = _bounded(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure_logging(telemetry: TelemetrySettings, service: str, stream: TextIO | None = None) -> None:
    """Send every record of this process to stderr (or `stream`) as JSON. A second call replaces the first.

    `service` is api, worker, node or embedded. Libraries that install their own handlers (uvicorn) must be started
    with log_config=None, so that their records come here.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(telemetry.log_level)
    # Their INFO is one line for each request or task; the level still lets DEBUG through when asked for.
    chatty = logging.WARNING if telemetry.log_level == "INFO" else logging.getLevelName(telemetry.log_level)
    for name in ("httpx", "httpcore", "alembic", "uvicorn.access", "urllib3"):
        logging.getLogger(name).setLevel(chatty)
    logging.captureWarnings(True)


def configure_tracing(telemetry: TelemetrySettings, service: str) -> ReplaySafeTracerProvider:
    """Make the process's tracer provider and set it globally; spans leave only when `otlp_endpoint` is set.

    Replay-safe, so that temporalio's OpenTelemetryPlugin can use it in a worker. A span is sampled when its parent is,
    a root by `sampling_rate`. Call shutdown() on it before the process ends: it sends what is still in the batch.
    """
    provider = create_tracer_provider(
        sampler=ParentBased(TraceIdRatioBased(telemetry.sampling_rate)),
        resource=Resource.create({"service.name": f"hotswap-{service}"}),
        shutdown_on_exit=False,
    )
    if telemetry.otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=f"{telemetry.otlp_endpoint.rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def _message(record: logging.LogRecord) -> str:
    """The message, also when a caller's arguments do not fit its format: a log call never breaks the work."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args!r}"


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"
