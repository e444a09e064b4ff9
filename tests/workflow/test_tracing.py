"""A rollout's spans on a real Temporal server: one a phase, once, with its true beginning, however often the run is replayed."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor, create_tracer_provider

from hotswap import temporal
from hotswap.activity_tracing import ActivityTracing
from hotswap.config import Settings
from hotswap.telemetry import JsonFormatter
from tests.workflow.world import Arm, ScriptedNode, World, canary, send, until
from workflows.log_fields import WorkflowLogFields


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of this process, which traces from here on."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    exporter, provider = InMemorySpanExporter(), create_tracer_provider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
async def traced_world(exported: InMemorySpanExporter, settings: Settings, tmp_path: Path) -> World:
    client = await temporal.connect(settings.temporal)
    made = World(client, tmp_path, interceptors=[WorkflowLogFields(), ActivityTracing({"environment": "Development"})])
    await made.fill()
    return made


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def fact(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(f"hotswap.{name}")


def began(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def ended(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


async def test_each_phase_is_exported_once_with_its_true_times_though_every_task_replays(
    traced_world: World, exported: InMemorySpanExporter
) -> None:
    world, tracer = traced_world, trace.get_tracer("test")
    world.cached_runs = 0
    async with world.working():
        await world.serve_first_version()
        exported.clear()
        with tracer.start_as_current_span("request") as request:
            handle = await world.start(world.request(canary((100,))))
            whole = request.get_span_context()
        assert (await handle.result()).status == "Completed"
    spans = [span for span in exported.get_finished_spans() if ids(span)[0] == whole.trace_id]
    by_id = {ids(span)[1]: span for span in spans}
    assert len(by_id) == len(spans)
    phases = [fact(span, "phase") for span in spans if span.name == "plugin.deploy"]
    assert phases == [
        *("plan", "verify-artifact", "run-trial", "stage-version", "shift-tenants", "promote-version", "retire-version")
    ]
    for span in spans:
        if span.name == "request":
            continue
        assert span.parent is not None
        parent = by_id[span.parent.span_id]
        assert began(parent) <= began(span)
        if span.name == "plugin.deploy":
            assert parent.name == "request"
        else:
            assert parent.name == "plugin.deploy"
            assert ended(span) <= ended(parent), f"{span.name} ended in {fact(parent, 'phase')}"
    promote = next(span for span in spans if fact(span, "phase") == "promote-version")
    shift = next(span for span in spans if fact(span, "phase") == "shift-tenants")
    assert [ids(shift)] == [(link.context.trace_id, link.context.span_id) for link in promote.links]
    assert not next(span for span in spans if fact(span, "phase") == "retire-version").links, "nobody waited"


async def test_a_long_wait_adds_nothing_to_the_trace_but_looks_beside_it(
    traced_world: World, exported: InMemorySpanExporter
) -> None:
    world, tracer = traced_world, trace.get_tracer("test")
    world.figures.arms["2.0.0"] = Arm(requests=0)
    async with world.working():
        await world.serve_first_version()
        exported.clear()
        with tracer.start_as_current_span("request") as request:
            handle = await world.start(world.request(canary((100,))))
        looks = world.figures.looks + 5
        await until(handle, lambda progress: world.figures.looks >= looks or progress.status == "Paused")
        with tracer.start_as_current_span("abort") as command:
            await send(handle, "abort", reason="seen enough")
        assert (await handle.result()).status == "Aborted"
    trace_id = request.get_span_context().trace_id
    spans = exported.get_finished_spans()
    judged = [span for span in spans if span.name == "plugin.judge"]
    assert len(judged) >= 2
    for look in judged:
        assert ids(look)[0] != trace_id
        assert look.parent is None
        assert [link.context.trace_id for link in look.links] == [trace_id]
    (back,) = [span for span in spans if span.name == "plugin.rollback"]
    assert ids(back)[0] == trace_id
    ordered = command.get_span_context()
    assert (ordered.trace_id, ordered.span_id) in [(one.context.trace_id, one.context.span_id) for one in back.links]
    undone = [span.name for span in spans if span.parent is not None and span.parent.span_id == ids(back)[1]]
    assert {"plugin.switch", "plugin.unload"} <= set(undone)


async def test_what_fails_is_marked_by_its_type_and_never_by_its_words(
    traced_world: World, exported: InMemorySpanExporter
) -> None:
    for node in traced_world.nodes:
        node.fail_to_load = {"2.0.0"}  # its fault's message quotes
    async with traced_world.working():
        await traced_world.serve_first_version()
        exported.clear()
        assert (await traced_world.deploy(traced_world.request(canary((100,))))).status == "RolledBack"
    spans = exported.get_finished_spans()
    loads = [span for span in spans if span.name == "plugin.load"]
    assert loads
    for span in loads:
        assert not span.status.is_ok
        assert (span.attributes or {})["error.type"] == "HostFailed"
    assert not [event for span in spans for event in span.events]
    assert "imported" not in "".join(span.to_json() for span in spans)


class TalkingNode(ScriptedNode):
    def _obey(self, what: str, order: Any) -> None:
        logging.getLogger("tests.talking").warning("%s was ordered", what)
        super()._obey(what, order)


async def test_what_an_activity_logs_names_the_trace_the_plugin_and_the_deployment(
    traced_world: World, exported: InMemorySpanExporter
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("node"))
    log = logging.getLogger("tests.talking")
    log.addHandler(handler)
    traced_world.nodes[:] = [TalkingNode(node.node_id) for node in traced_world.nodes]
    try:
        async with traced_world.working():
            request = traced_world.request(canary((100,)), version="1.0.0")
            with trace.get_tracer("test").start_as_current_span("request") as span:
                handle = await traced_world.start(request)
            await asyncio.wait_for(handle.result(), 60)
    finally:
        log.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["message"] for line in lines} >= {"stage was ordered", "apply was ordered", "retire was ordered"}
    for line in lines:
        assert line["trace_id"] == trace.format_trace_id(span.get_span_context().trace_id)
        assert len(line["span_id"]) == 16
        assert (line["plugin"], line["version"]) == (traced_world.name, "1.0.0")
        assert (line["environment"], line["deployment"]) == ("Development", request.deployment_id)


async def test_a_process_that_traces_nothing_carries_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    client = await temporal.connect(settings.temporal)
    assert not any(isinstance(one, OpenTelemetryInterceptor) for one in client.config()["interceptors"])
