"""Every record is one JSON line that says which trace, plugin, version, tenant... it is about."""

import http.server
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from hotswap.config import TelemetrySettings
from hotswap.telemetry import MAX_TEXT, configure_logging, configure_tracing, log_fields


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
def test_sampling_follows_the_rate_and_the_parent() -> None:
    provider = configure_tracing(TelemetrySettings(sampling_rate=0.0), "worker")
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("root") as root:
        assert not root.get_span_context().trace_flags.sampled
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    with tracer.start_as_current_span("child", context=parent) as child:
        assert child.get_span_context().trace_flags.sampled
    provider.shutdown()


@pytest.mark.usefixtures("fresh_global_tracer")
def test_spans_reach_the_collector_that_is_named() -> None:
    seen: list[tuple[str, int]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, len(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings = TelemetrySettings(otlp_endpoint=f"http://127.0.0.1:{server.server_port}/")
        provider = configure_tracing(settings, "api")
        with provider.get_tracer("test").start_as_current_span("plugin.upload"):
            pass
        provider.shutdown()
        server.shutdown()
        thread.join()
    assert [path for path, size in seen if size > 0] == ["/v1/traces"]
