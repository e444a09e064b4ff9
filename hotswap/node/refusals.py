"""The router's error answers: which status, which code, which words. Pure; hotswap.node.answers makes the bytes."""

import math
from dataclasses import dataclass

from hotswap.node.quotas import Meter
from hotswap.ports.hosts import Reply


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer. `close` ends the connection after it; `extra` are header lines of their own; `field` names one detail."""

    status: int
    code: str
    message: str
    close: bool = False
    extra: bytes = b""
    field: str = ""


RETRY = b"retry-after: 1\r\n"
UNAUTHORIZED = Refusal(
    401, "UNAUTHORIZED", "send the tenant token as Authorization: Bearer <token>", extra=b"www-authenticate: Bearer\r\n"
)
NO_PATH = Refusal(404, "NOT_FOUND", "this port serves POST /invoke/{tenant}/{plugin}/{method} only")
NO_METHOD = Refusal(405, "METHOD_NOT_ALLOWED", "use POST", extra=b"allow: POST\r\n")
STOPPING = Refusal(503, "SERVICE_UNAVAILABLE", "this node is stopping; try another", close=True, extra=RETRY)
TOO_MANY = Refusal(
    503, "SERVICE_UNAVAILABLE", "the node has too many connections; try another", close=True, extra=RETRY
)
TOO_MANY_HERE = Refusal(
    503,
    "SERVICE_UNAVAILABLE",
    "your address has too many connections to this node; reuse them",
    close=True,
    extra=RETRY,
)


def unrouted(plugin: str, tenant: str) -> Refusal:
    return Refusal(404, "NOT_FOUND", f"no version of {plugin} serves tenant {tenant} here")


def disabled(plugin: str, tenant: str) -> Refusal:
    return Refusal(403, "FORBIDDEN", f"{plugin} is disabled for tenant {tenant}; its owner can enable it again")


def restarting(plugin: str, version: str) -> Refusal:
    message = f"{plugin} {version} is restarting here; nothing was run, so a repeat is safe"
    return Refusal(503, "SERVICE_UNAVAILABLE", message, extra=RETRY)


def expired(plugin: str, version: str) -> Refusal:
    message = (
        f"the call's time was over before {plugin} {version} could take it here; nothing was run, so a repeat is safe"
    )
    return Refusal(504, "TIMEOUT", message)


def overloaded(plugin: str, version: str) -> Refusal:
    message = f"{plugin} {version} has more requests here than it can serve; nothing was run, so a repeat is safe"
    return Refusal(503, "SERVICE_UNAVAILABLE", message, extra=RETRY)


def over_rate(tenant: str, plugin: str, meter: Meter, short: float, now: float) -> Refusal:
    """`short`: seconds until the next request is allowed."""
    limit = meter.quota.requests_per_minute
    seconds = math.ceil(short)
    extra = (
        f"x-ratelimit-limit: {limit}\r\nx-ratelimit-remaining: {meter.left(now)}\r\nx-ratelimit-reset: {seconds}\r\n"
    )
    message = (
        f"tenant {tenant} has used its quota requestsPerMinute={limit} of {plugin} on this node; "
        f"try again in {seconds} s, or have the quota raised"
    )
    return _limited(message, "requestsPerMinute", seconds, extra.encode())


def over_share(tenant: str, plugin: str, meter: Meter, limit: str) -> Refusal:
    """`limit`: concurrent or memoryMb."""
    quota = meter.quota
    allowed = quota.concurrent if limit == "concurrent" else quota.memory_mb
    message = (
        f"tenant {tenant} has {meter.under_way()} calls of {plugin} under way on this node, which is what its quota "
        f"{limit}={allowed} allows; wait for answers before sending more, or have the quota raised"
    )
    return _limited(message, limit, 1)


def _limited(message: str, limit: str, seconds: int, extra: bytes = b"") -> Refusal:
    return Refusal(429, "RATE_LIMIT_EXCEEDED", message, extra=b"retry-after: %d\r\n%b" % (seconds, extra), field=limit)


def refusal_of(reply: Reply) -> Refusal:
    """What a host's failure means to the caller."""
    message = reply.body.decode(errors="replace")
    if reply.unknown_method:
        return Refusal(404, "NOT_FOUND", message)
    if reply.invalid:
        return Refusal(400, "VALIDATION_ERROR", message)
    if reply.kind:
        return Refusal(500, "PLUGIN_ERROR", f"{reply.kind}: {message}")
    if not reply.started:
        return Refusal(503, "SERVICE_UNAVAILABLE", f"{message}; nothing was run, so a repeat is safe", extra=RETRY)
    if reply.limit == "TIMEOUT":
        return Refusal(504, "TIMEOUT", f"{message}; it may have run")
    return Refusal(502, "HOST_FAILED", f"{reply.limit or 'the host failed'}: {message}; it may have run")
