"""Calls one method of one version in a process of its own and says what it cost. Implements hotswap.ports.sandbox.SandboxCaller.

Neighbours: launcher makes the process, whoever composes gives the unpacked bundles (hotswap.node.bundles),
activities.sandbox asks. A process is used once: nothing of one call can be seen by the next.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from time import monotonic, perf_counter
from typing import Any, Protocol

from hotswap.config import SandboxSettings
from hotswap.domain.deployment import Environment
from hotswap.domain.errors import HostFailed, NotFound, PluginError, SandboxUnavailable, Unavailable
from hotswap.domain.manifest import MAX_NESTING
from hotswap.domain.routes import ArtifactRef
from hotswap.domain.sandbox import LIMITS, MAX_LOG_BYTES, MAX_OUTPUT_BYTES
from hotswap.ports.hosts import HostSpec
from hotswap.ports.sandbox import CallReport, SandboxCall
from hotswap.ports.tenant_settings import TenantSettings
from hotswap.runtime.egress import EgressPolicy
from hotswap.runtime.handle import ZygoteHost
from hotswap.runtime.launcher import ZygoteLauncher

logger = logging.getLogger(__name__)

UNUSED_AFTER = timedelta(hours=2)
"""A bundle that no call has used for so long goes: twice the longest life of a session."""
PRUNE_EVERY = 600.0
"""Seconds."""
DROPPED = "(OUTPUT_LIMIT: the rest is dropped)"


class Bundles(Protocol):
    """Unpacked bundles by digest on this machine's disk."""

    async def prepare(self, ref: ArtifactRef) -> HostSpec: ...
    async def prune(self, in_use: Iterable[str], older_than: timedelta) -> int: ...


class SandboxedCalls:
    """Belongs to one event loop. `close` ends the zygote behind it, which starts with the first call."""

    def __init__(self, settings: SandboxSettings, bundles: Bundles) -> None:
        self._bundles = bundles
        self._launcher = ZygoteLauncher(settings.tier, settings.max_memory_mb, egress=EgressPolicy.of(settings))
        self._in_use: Counter[str] = Counter()
        self._pruned_at = -PRUNE_EVERY

    @property
    def sandbox_tier(self) -> str:
        return self._launcher.sandbox_tier

    async def close(self) -> None:
        await self._launcher.close()

    async def prepare(self, ref: ArtifactRef) -> None:
        await self._prune()
        await self._bundles.prepare(ref)

    async def call(self, order: SandboxCall) -> CallReport:
        if self.sandbox_tier == "none" and order.environment is Environment.PRODUCTION:
            raise SandboxUnavailable(
                "sandbox tier 'none' is never accepted for Production; set HOTSWAP_SANDBOX__TIER=standard on the workers"
            )
        await self._launcher.start()
        self._in_use[order.ref.digest] += 1
        try:
            spec = await self._bundles.prepare(order.ref)
            return await self._call(order, spec)
        finally:
            self._in_use[order.ref.digest] -= 1

    async def _call(self, order: SandboxCall, spec: HostSpec) -> CallReport:
        logs = Logs()
        found = {"sandbox_tier": self.sandbox_tier}
        began = perf_counter()
        try:
            host = await self._launcher.launch(
                spec.model_copy(
                    update={
                        "resources": order.resources,
                        "max_reply_bytes": MAX_OUTPUT_BYTES,
                        "load_timeout": order.timeout,
                    }
                ),
                cpu_seconds=order.resources.cpu_seconds,
                told=logs.hear,
                tenants=_OneTenant(order.configuration) if order.configuration is not None else None,
            )
        except HostFailed as fault:
            return CallReport(
                succeeded=False,
                **found,
                limit=known(fault.limit),
                reason=fault.message,
                logs=logs.text,
                duration_ms=(perf_counter() - began) * 1000,
            )
        verdict: dict[str, Any] = {}
        try:
            left = order.timeout - timedelta(seconds=perf_counter() - began)
            verdict = await self._answer(host, order, max(left, timedelta(milliseconds=1)))
            duration_ms = (perf_counter() - began) * 1000
        finally:
            # What answered may say good-bye, and flush its log; what did not is killed, whoever waits.
            ends = host.close() if verdict and not verdict.get("limit") else host.kill()
            await asyncio.shield(asyncio.ensure_future(ends))
        if (host.output_limited or logs.full) and not verdict.get("limit"):
            verdict["limit"] = "OUTPUT_LIMIT"
        return CallReport(
            **found,
            **verdict,
            logs=logs.text,
            load_ms=host.load_ms,
            duration_ms=duration_ms,
            peak_memory_bytes=host.peak_memory_bytes(),
        )

    @staticmethod
    async def _answer(host: ZygoteHost, order: SandboxCall, timeout: timedelta) -> dict[str, Any]:
        try:
            body = await host.invoke(order.method, order.tenant, order.parameters.encode(), timeout)
            return {"succeeded": True, "output": kept_json(body), "reason": "it returned a result"}
        except PluginError as fault:
            return {"succeeded": False, "error_kind": fault.kind, "reason": f"raised {fault.kind}: {fault.message}"}
        except HostFailed as fault:
            return {"succeeded": False, "limit": known(fault.limit), "reason": fault.message}
        except NotFound as fault:
            return {"succeeded": False, "reason": fault.message}

    async def _prune(self) -> None:
        if monotonic() - self._pruned_at < PRUNE_EVERY:
            return
        self._pruned_at = monotonic()
        try:
            await self._bundles.prune([digest for digest, count in self._in_use.items() if count], UNUSED_AFTER)
        except OSError as fault:
            raise Unavailable(f"unused bundles cannot be removed here: {fault}") from fault


class _OneTenant:
    """A TenantSettingsProvider for the one call of a host: what was sent with it, and no secrets."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._settings = TenantSettings(1, configuration)

    def current(self, tenant: str, plugin: str) -> TenantSettings:
        del tenant, plugin
        return self._settings

    async def ensure(self, plugin: str) -> None:
        """It is known."""

    async def refresh(self) -> None:
        """It stays."""


class Logs:
    """The lines a plugin printed, up to MAX_LOG_BYTES."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._left = MAX_LOG_BYTES - len(DROPPED) - 1
        self.full = False

    def hear(self, line: str) -> None:
        if self.full:
            return
        self._left -= len(line.encode()) + 1
        self.full = self._left < 0
        self._lines.append(DROPPED if self.full else line)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def known(limit: str) -> str:
    return limit if limit in LIMITS else "BAD_REPLY"


def kept_json(body: bytes) -> str:
    """A result as the record keeps it. Raises HostFailed (BAD_REPLY, REPLY_TOO_LARGE) for what JSON readers choke on."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise HostFailed("the result holds half a surrogate pair, which is not Unicode text", "BAD_REPLY") from None
    except (ValueError, RecursionError) as fault:
        raise HostFailed(f"the result is not JSON: {str(fault)[:200]}", "BAD_REPLY") from None
    if nesting(value) > MAX_NESTING:
        raise HostFailed(f"the result is nested over {MAX_NESTING} levels deep", "BAD_REPLY")
    if len(text.encode()) > MAX_OUTPUT_BYTES:
        raise HostFailed(f"the result is over {MAX_OUTPUT_BYTES} bytes", "REPLY_TOO_LARGE")
    return text


def nesting(value: Any) -> int:
    """Levels of objects and lists, found without recursion: the depth is the sender's."""
    deepest, pending = 0, [(value, 0)]
    while pending:
        one, depth = pending.pop()
        if isinstance(one, dict | list):
            deepest = max(deepest, depth + 1)
            inner = one.values() if isinstance(one, dict) else one
            pending += [(child, depth + 1) for child in inner if isinstance(child, dict | list)]
    return deepest


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")
