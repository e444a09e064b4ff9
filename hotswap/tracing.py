"""Spans by the names of the specification, their attributes, and how a trace goes on after a long wait.

OpenTelemetry's API only, so that workflows may use it (their tracer is replay-safe, see hotswap.telemetry.configure_tracing).
Neighbours: hotswap.activity_tracing makes the spans of activities, hotswap.node.call_spans those of tenants' calls.
docs/telemetry.md lists every span. No secret and no payload is ever an attribute: only FACTS are.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum

from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


class SpanName(StrEnum):
    REGISTER = "plugin.register"
    UPLOAD = "plugin.upload"
    DEPLOY = "plugin.deploy"
    VALIDATE = "plugin.validate"
    LOAD = "plugin.load"
    SWITCH = "plugin.switch"
    HEALTH_CHECK = "plugin.health-check"
    JUDGE = "plugin.judge"
    EXECUTE = "plugin.execute"
    UNLOAD = "plugin.unload"
    ROLLBACK = "plugin.rollback"


FACTS = ("plugin", "version", "tenant", "environment", "deployment", "node", "method", "strategy", "phase", "check")
"""What an attribute may say; it is named `hotswap.` and this."""

MAX_FACT = 128
"""Characters of an attribute: the longest name we accept anywhere is shorter."""

MAX_LINKS = 8
"""Links of one span: more commands than that in one wait are in the timeline anyway."""

_DEPLOYMENT = "hotswap-deployment"
_CAUSE = "hotswap-cause"
"""Keys of the baggage that goes from a workflow to its activities, in Temporal's headers."""

_TRACE_ONLY = TraceContextTextMapPropagator()


@contextmanager
def span(
    name: SpanName,
    facts: Mapping[str, str] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[SpanContext] = (),
    parent: Context | None = None,
) -> Iterator[Span]:
    """The work inside as one span; what it raises marks the span as failed, by the fault's type only.

    `parent`: of a request from elsewhere, as `parent_of` reads it; else the span that is current here.
    """
    running = trace.get_tracer("hotswap").start_span(
        name,
        context=parent,
        kind=kind,
        attributes=attributes(facts or {}),
        links=[Link(one) for one in links[-MAX_LINKS:]],
        record_exception=False,  # a message may quote what it was given
        set_status_on_exception=False,
    )
    try:
        with _attached(trace.set_span_in_context(running)):
            yield running
    except Exception as fault:
        failed(running, kind_of(fault))
        raise
    finally:
        running.end()


def attributes(facts: Mapping[str, str]) -> dict[str, str]:
    """As attributes, bounded; empty facts are left out. Raises ValueError for one that is not in FACTS."""
    if unknown := sorted(facts.keys() - set(FACTS)):
        raise ValueError(f"{', '.join(unknown)}: not a span's fact; use one of {', '.join(FACTS)}")
    return {f"hotswap.{name}": str(value)[:MAX_FACT] for name, value in facts.items() if value}


def failed(running: Span, kind: str) -> None:
    running.set_status(Status(StatusCode.ERROR))
    running.set_attribute("error.type", kind[:MAX_FACT])


def kind_of(fault: BaseException) -> str:
    """The type that Temporal's errors carry, else the class."""
    return str(getattr(fault, "type", None) or type(fault).__name__)


# -- what comes from outside, and goes there ---------------------------------------------------------------------------


def parent_of(headers: Mapping[str, str]) -> Context:
    """The caller's trace, by its `traceparent` alone.

    Its baggage and tracestate may hold kilobytes, and would go on into every activity of a rollout's history.
    """
    given = headers.get("traceparent", "")
    return _TRACE_ONLY.extract({"traceparent": given}, Context())


def traceparent_headers() -> dict[str, str]:
    """What to send along to another process, so that its spans belong to this trace; empty outside of one."""
    carrier: dict[str, str] = {}
    _TRACE_ONLY.inject(carrier)
    return {"traceparent": carrier["traceparent"]} if carrier else {}


def current() -> SpanContext | None:
    """The span that is current here, also one of another process; None outside of any."""
    here = trace.get_current_span().get_span_context()
    return here if here.is_valid else None


# -- rollouts ----------------------------------------------------------------------------------------------------------


@contextmanager
def of_deployment(deployment_id: str) -> Iterator[None]:
    """Activities started inside know which deployment they belong to: spans and log records say so."""
    with _attached(baggage.set_baggage(_DEPLOYMENT, deployment_id)):
        yield


@contextmanager
def aside() -> Iterator[None]:
    """What is started inside makes traces of its own, each linked to the span that is current here.

    For what repeats while a rollout waits: a day of looks in one trace is a trace that nobody can open.
    """
    outside = Context()
    if deployment := deployment_here():
        outside = baggage.set_baggage(_DEPLOYMENT, deployment, outside)
    if headers := traceparent_headers():
        outside = baggage.set_baggage(_CAUSE, headers["traceparent"], outside)
    with _attached(outside):
        yield


def deployment_here() -> str:
    return str(baggage.get_baggage(_DEPLOYMENT) or "")


def cause_here() -> tuple[SpanContext, ...]:
    """What to link to, in an activity that was started `aside`."""
    cause = trace.get_current_span(parent_of({"traceparent": str(baggage.get_baggage(_CAUSE) or "")}))
    return (cause.get_span_context(),) if cause.get_span_context().is_valid else ()


@contextmanager
def _attached(inside: Context) -> Iterator[None]:
    token = context.attach(inside)
    try:
        yield
    finally:
        # Not when an evicted workflow is torn down somewhere else: there is nothing to detach there.
        if context.get_current() is inside:
            context.detach(token)
