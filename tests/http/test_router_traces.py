"""Which calls are traced, what their spans say, and what the plugin is told: the flag is the caller's, the bound is ours."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from hotswap.node.call_spans import CallSpans
from tests.http.router_client import QUICK, Bench, bench, request
from tests.unit.node_fakes import order

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Traced:
    def __init__(self, rate: float, most: int) -> None:
        self.recorded: list[ReadableSpan] = []
        self.spans = CallSpans(self.recorded.append, Resource({}), rate, "node-t", "QA", most)
        self.bench: Bench

    async def call(self, traceparent: str = "", method: str = "echo", token: str = "tenant-secret") -> int:
        wire = await self.bench.wire()
        extra = f"traceparent: {traceparent}\r\n".encode() if traceparent else b""
        await wire.send(request(method, body=b'{"iban": "secret"}', extra=extra, token=token))
        return (await wire.receive()).status

    @property
    def told(self) -> list[str]:
        """The trace context of each call as its host got it."""
        return [given.decode() for given in self.bench.launcher.hosts[0].traceparents]

    def flushed(self) -> list[ReadableSpan]:
        self.spans.flush()
        return self.recorded


@pytest.fixture
async def traced(request: pytest.FixtureRequest) -> AsyncIterator[Traced]:
    made = Traced(*getattr(request, "param", (0.0, 50)))
    unhurried = replace(QUICK, sweep_seconds=60)  # a sweep flushes: here the tests say when a second is over
    async with bench(unhurried, spans=made.spans) as made.bench:
        await made.bench.supervisor.stage(order(1, "1.0.0"))
        yield made


async def test_a_sampled_callers_call_is_a_span_below_it_and_the_plugin_goes_on_from_there(traced: Traced) -> None:
    assert await traced.call(SAMPLED) == 200
    (span,) = traced.flushed()
    assert (span.name, f"{span.parent.span_id:016x}" if span.parent else "") == ("plugin.execute", PARENT)
    context = span.get_span_context()
    assert context is not None
    assert f"{context.trace_id:032x}" == TRACE
    assert traced.told == [f"00-{TRACE}-{context.span_id:016x}-01"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= span.end_time
    assert span.attributes == {
        "hotswap.plugin": "invoice",
        "hotswap.version": "1.0.0",
        "hotswap.tenant": "acme",
        "hotswap.method": "echo",
        "hotswap.node": "node-t",
        "hotswap.environment": "QA",
        "http.response.status_code": 200,
    }
    assert span.status.is_ok


@pytest.mark.parametrize("traced", [(1.0, 50)], indirect=True)
async def test_a_call_without_a_trace_begins_one_by_the_rate(traced: Traced) -> None:
    assert await traced.call() == 200
    (span,) = traced.flushed()
    context = span.get_span_context()
    assert context is not None
    assert span.parent is None
    assert traced.told == [f"00-{context.trace_id:032x}-{context.span_id:016x}-01"]


@pytest.mark.parametrize("given", ["", UNSAMPLED, f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "x" * 55])
async def test_a_call_that_is_not_sampled_passes_as_it_came(traced: Traced, given: str) -> None:
    assert await traced.call(given) == 200
    assert traced.told == [given]
    assert traced.flushed() == []


@pytest.mark.parametrize("traced", [(1.0, 2)], indirect=True)
async def test_no_caller_gets_more_spans_a_second_than_the_node_makes(traced: Traced) -> None:
    for given in (SAMPLED, SAMPLED, SAMPLED, ""):
        assert await traced.call(given) == 200
    spans = [f"{context.span_id:016x}" for span in traced.flushed() if (context := span.get_span_context())]
    assert len(spans) == 2
    assert [told.split("-")[2] if told else "" for told in traced.told] == [*spans, PARENT, ""]
    assert await traced.call(SAMPLED) == 200
    assert len(traced.flushed()) == 3, "the next second allows as many again"


async def test_a_failed_call_says_which_code_and_no_words(traced: Traced) -> None:
    assert await traced.call(SAMPLED, "boom") == 500
    assert await traced.call(SAMPLED, "nothing") == 404
    fault, missing = traced.flushed()
    assert not fault.status.is_ok
    assert fault.attributes is not None
    assert (fault.attributes["error.type"], fault.attributes["http.response.status_code"]) == ("PLUGIN_ERROR", 500)
    assert missing.status.is_ok, "the caller's fault"
    assert "iban" not in fault.to_json() + missing.to_json()
    assert "no such invoice" not in fault.to_json()


async def test_who_may_not_call_makes_no_span(traced: Traced) -> None:
    assert await traced.call(SAMPLED, token="wrong") == 401
    assert traced.flushed() == []
