"""Every record is one JSON line that says which trace, plugin, version, tenant... it is about."""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from hotswap.config import TelemetrySettings
from hotswap.log_fields import log_fields
from hotswap.telemetry import MAX_TEXT, ExportOutages, JsonFormatter, configure_logging, configure_tracing
from tests.stack.otlp import OtlpReceiver


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logging(TelemetrySettings(), "worker", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_record_is_one_line_with_its_fields(lines: Any) -> None:
    logging.getLogger("activities.nodes").info(
        "loaded %s\nin %d ms", "greeter", 4, extra={"plugin": "greeter", "node": "node-1"}
    )
    (line,) = lines()
    assert line["message"] == "loaded greeter\nin 4 ms"
    assert (line["level"], line["service"], line["logger"]) == ("INFO", "worker", "activities.nodes")
    assert (line["plugin"], line["node"], line["trace_id"]) == ("greeter", "node-1", "")
    assert line["time"].endswith("+00:00")
    assert "tenant" not in line


def test_bound_fields_hold_inside_and_end_outside(lines: Any) -> None:
    log = logging.getLogger("x")
    with log_fields(plugin="greeter", version="1.0.0"), log_fields(version="2.0.0"):
        log.info("inside")
        log.info("own", extra={"version": "3.0.0"})
    log.info("outside")
    inside, own, outside = lines()
    assert (inside["plugin"], inside["version"]) == ("greeter", "2.0.0")
    assert own["version"] == "3.0.0"
    assert "plugin" not in outside


def test_a_field_nobody_searches_for_is_refused() -> None:
    with pytest.raises(ValueError, match="plugn: not a log field"), log_fields(plugn="greeter"):
        pass


def test_a_traceback_stays_on_its_line(lines: Any) -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("x").exception("it failed")
    (line,) = lines()
    assert "RuntimeError: broken" in line["error"]


def test_outside_text_is_bounded(lines: Any) -> None:
    logging.getLogger("x").warning("said: %s", "a" * 1_000_000)
    assert len(lines()[0]["message"]) < MAX_TEXT + 100


def test_a_log_call_with_wrong_arguments_breaks_nothing(lines: Any) -> None:
    quiet = logging.getLogger("x.quiet")  # apart from the root: pytest's own handler there raises
    quiet.handlers[:] = logging.getLogger().handlers[:1]
    quiet.propagate = False
    quiet.warning("%d plugins", "many")
    assert lines()[0]["message"] == "%d plugins ('many',)"


@pytest.fixture
def fresh_global_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


@pytest.mark.usefixtures("fresh_global_tracer")
def test_a_record_inside_a_span_names_the_trace(lines: Any) -> None:
    provider = configure_tracing(TelemetrySettings(), "worker")
    with trace.get_tracer("test").start_as_current_span("plugin.deploy") as span:
        logging.getLogger("x").info("in a span")
        wanted = trace.format_trace_id(span.get_span_context().trace_id)
    assert lines()[0]["trace_id"] == wanted
    provider.shutdown()


@pytest.mark.usefixtures("fresh_global_tracer")
def test_a_plugins_own_trace_is_not_lost_to_ours(lines: Any) -> None:
    tracing = configure_tracing(TelemetrySettings(), "node")
    with trace.get_tracer("test").start_as_current_span("plugin.load"):
        logging.getLogger("hotswap.plugin").info("said", extra={"trace_id": "a" * 32, "span_id": "b" * 16})
    assert (lines()[0]["trace_id"], lines()[0]["span_id"]) == ("a" * 32, "b" * 16)
    tracing.shutdown()


def test_fields_of_the_whole_process_give_way_to_those_of_a_record() -> None:
    formatter = JsonFormatter("node", {"node": "node-1", "environment": "QA"})
    record = logging.LogRecord("x", logging.INFO, "", 0, "said", (), None)
    record.environment = "Staging"
    line = json.loads(formatter.format(record))
    assert (line["node"], line["environment"], line["span_id"]) == ("node-1", "Staging", "")


@pytest.mark.usefixtures("fresh_global_tracer")
def test_sampling_follows_the_rate_and_the_parent() -> None:
    with OtlpReceiver() as receiver:
        settings = TelemetrySettings(otlp_endpoint=f"{receiver.endpoint}/", sampling_rate=0.0)
        tracing = configure_tracing(settings, "worker")
        tracer = tracing.provider.get_tracer("test")
        with tracer.start_as_current_span("root") as root:
            assert not root.get_span_context().trace_flags.sampled
        with tracer.start_as_current_span("child", context=sampled_parent()):
            pass
        tracing.shutdown()
        assert [(span.name, span.service) for span in receiver.spans()] == [("child", "hotswap-worker")]
        assert receiver.faults == []


@pytest.mark.usefixtures("fresh_global_tracer")
def test_without_an_endpoint_nothing_is_recorded_and_traces_still_have_ids() -> None:
    tracing = configure_tracing(TelemetrySettings(), "api")
    assert not tracing.exported
    with tracing.provider.get_tracer("test").start_as_current_span("child", context=sampled_parent()) as child:
        assert not child.is_recording()
        assert child.get_span_context().trace_id == 1
    tracing.shutdown()


def test_a_collector_that_is_away_is_told_once_and_so_is_its_return(lines: Any) -> None:
    away, there = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    results = [there, away, away, away, there, there]

    class Collector(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return results.pop(0)

    exporter = ExportOutages(Collector(), "http://collector:4318")
    assert [exporter.export(()) for _ in range(6)] == [there, away, away, away, there, there]
    assert [line["level"] for line in lines()] == ["WARNING", "INFO"]
    assert "http://collector:4318" in lines()[0]["message"]


def sampled_parent() -> Context:
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    return trace.set_span_in_context(trace.NonRecordingSpan(remote))
