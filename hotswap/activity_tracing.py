"""Around every activity: its span, where it is worth one, and the fields of what it logs.

Neighbours: hotswap.temporal.connect carries the trace along (Temporal's headers), worker.py and hotswap.node.agent give
this to their workers, hotswap.tracing has the names. What only keeps the books (records, the line of waiters) has no
span: a rollout that is watched for days would fill its trace with them.
"""

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from hotswap.log_fields import FIELDS, log_fields
from hotswap.tracing import SpanName, cause_here, deployment_here, span

SPANS: Mapping[str, tuple[SpanName, str]] = {
    "verify_artifact": (SpanName.VALIDATE, "digest"),
    "run_trial": (SpanName.VALIDATE, "trial"),
    "stage_version": (SpanName.LOAD, ""),
    "apply_routes": (SpanName.SWITCH, ""),
    "probe_version": (SpanName.HEALTH_CHECK, "readiness"),
    "smoke_version": (SpanName.HEALTH_CHECK, "smoke"),
    "retire_versions": (SpanName.UNLOAD, ""),
    "judge_version": (SpanName.JUDGE, "guard"),
    "compare_versions": (SpanName.JUDGE, "experiment"),
    "run_execution": (SpanName.EXECUTE, "sandbox"),
}
"""By activity: its span, and which of several checks it is."""

_INSIDE = ("order", "ref", "subject", "progress", "target", "request")
"""Where an order keeps what it is about."""
_NAMES = {
    "plugin": "plugin",
    "version": "version",
    "to_version": "version",
    "environment": "environment",
    "deployment_id": "deployment",
    "tenant": "tenant",
}


class ActivityTracing(Interceptor):
    def __init__(self, always: Mapping[str, str] | None = None) -> None:
        """`always`: facts of the process itself, such as its node."""
        self._always = dict(always or {})

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Traced(next, self._always)


class _Traced(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, always: Mapping[str, str]) -> None:
        super().__init__(next)
        self._always = always

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        facts = {"deployment": deployment_here(), **facts_of(input.args[0] if input.args else None), **self._always}
        facts = {name: value for name, value in facts.items() if value}
        with log_fields(**{name: value for name, value in facts.items() if name in FIELDS}):
            named = SPANS.get(activity.info().activity_type)
            if named is None:
                return await super().execute_activity(input)
            name, check = named
            if name is SpanName.UNLOAD:  # the order names what stays
                facts.pop("version", None)
            with span(name, {**facts, "check": check}, kind=SpanKind.CONSUMER, links=cause_here()) as running:
                if (attempt := activity.info().attempt) > 1:
                    running.set_attribute("hotswap.attempt", attempt)
                return await super().execute_activity(input)


def facts_of(order: Any) -> dict[str, str]:
    """What an activity's input says of itself, looking one level deep. Names only: nothing that people or plugins wrote."""
    if order is None:
        return {}
    found: dict[str, str] = {}
    for part in (order, *(getattr(order, name, None) for name in _INSIDE)):
        for field, fact in _NAMES.items():
            value = getattr(part, field, None)
            if isinstance(value, str) and fact not in found:
                found[fact] = str(value)
    if "version" not in found and (newest := _newest(order)):
        found["version"] = newest
    return found


def _newest(order: Any) -> str:
    """Of a route: the version it is about, the candidate if there is one."""
    state = getattr(getattr(order, "order", order), "state", None)
    ref = getattr(state, "candidate", None) or getattr(state, "stable", None)
    if ref is not None:
        return str(ref.version)
    candidate = getattr(order, "candidate", "")
    return candidate if isinstance(candidate, str) else ""
