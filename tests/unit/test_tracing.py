"""Span attributes are few, known and short; what comes from a stranger's headers is the traceparent and nothing else."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from opentelemetry import baggage, trace

from api.facts import facts_of_path
from hotswap.activity_tracing import SPANS, facts_of
from hotswap.adapters.memory.records import MemoryRecords
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HostFailed
from hotswap.domain.routes import ArtifactRef, RouteOrder, RouteState
from hotswap.standing_figures import STANDING, StandingFigures
from hotswap.tracing import MAX_FACT, attributes, kind_of, parent_of
from tests.unit.node_fakes import order

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_attribute_is_one_of_few_and_short() -> None:
    assert attributes({"plugin": "p" * 1000, "version": ""}) == {"hotswap.plugin": "p" * MAX_FACT}
    with pytest.raises(ValueError, match="body: not a span's fact"):
        attributes({"body": "secret"})


def test_only_the_traceparent_is_taken_from_a_request() -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "v=1", "baggage": "hotswap-deployment=dep_x,k=" + "v" * 4000}
    context = parent_of(headers)
    span = trace.get_current_span(context).get_span_context()
    assert trace.format_trace_id(span.trace_id) in TRACEPARENT
    assert not span.trace_state
    assert not baggage.get_all(context)
    assert not trace.get_current_span(parent_of({})).get_span_context().is_valid
    assert not trace.get_current_span(parent_of({"traceparent": "nonsense"})).get_span_context().is_valid


def test_a_fault_is_named_by_its_type() -> None:
    assert kind_of(HostFailed("secret words", "TIMEOUT")) == "HostFailed"
    assert kind_of(SimpleNamespace(type="ArtifactCorrupt")) == "ArtifactCorrupt"  # type: ignore[arg-type]


def test_what_an_order_is_about_is_found_in_it() -> None:
    ref = ArtifactRef(plugin="invoice", version="2.0.0", digest="a" * 64, size_bytes=1)
    route = RouteOrder(plugin="invoice", generation=2, state=RouteState(stable=order(1, "1.0.0").state.stable))
    assert facts_of(ref) == {"plugin": "invoice", "version": "2.0.0"}
    assert facts_of(SimpleNamespace(ref=ref, timeout=1)) == {"plugin": "invoice", "version": "2.0.0"}
    assert facts_of(route) == {"plugin": "invoice", "version": "1.0.0"}
    newer = route.model_copy(update={"state": route.state.model_copy(update={"candidate": ref})})
    assert facts_of(SimpleNamespace(order=newer, grace=1)) == {"plugin": "invoice", "version": "2.0.0"}
    judge = SimpleNamespace(environment=Environment.QA, plugin="invoice", candidate="2.0.0")
    assert facts_of(judge) == {"environment": "QA", "plugin": "invoice", "version": "2.0.0"}
    assert facts_of(None) == {}
    assert facts_of(7) == {}


def test_every_activity_with_a_span_exists() -> None:
    """A renamed activity would lose its span without a word."""
    from activities import analysis, artifacts, experiment, nodes, sandbox, trial

    defined = {
        getattr(method, "__temporal_activity_definition").name
        for module in (analysis, artifacts, experiment, nodes, sandbox, trial)
        for holder in vars(module).values()
        if isinstance(holder, type)
        for method in vars(holder).values()
        if hasattr(method, "__temporal_activity_definition")
    }
    assert set(SPANS) <= defined


def test_a_requests_path_says_what_it_is_about() -> None:
    given = {"pluginId": "invoice", "version": "1" * 500, "user": "ada"}
    assert facts_of_path({"path_params": given}) == {"plugin": "invoice", "version": "1" * 128}
    assert facts_of_path({}) == {}


class Gauges:
    """A meter that keeps what gauges were set to."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def create_gauge(self, name: str, meaning: str) -> object:
        def set_(value: float, labels: dict[str, str]) -> None:
            self.values[(name, *labels.values())] = value

        return SimpleNamespace(set=set_)


async def test_a_place_without_deployments_says_so_instead_of_what_it_last_was() -> None:
    records, gauges = MemoryRecords(clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)), Gauges()
    await StandingFigures(records.unit_of_work, gauges).look()  # type: ignore[arg-type]
    assert set(gauges.values.values()) == {0}
    assert len(gauges.values) == len(Environment) * (len(STANDING) + 1)
