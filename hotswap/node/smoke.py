"""Runs a version's smoke tests on this node's own idle host, before any tenant meets it. Implements NodeRuntime.smoke.

Neighbours: hotswap.node.supervisor finds the host, hotswap.runtime.smoke runs one test. The calls go past the router: they
are in no figure, so they cannot tilt a verdict.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from time import perf_counter

from hotswap.domain.base import bounded
from hotswap.domain.errors import HotSwapError
from hotswap.domain.manifest import SmokeTest
from hotswap.node.hosts import SupervisedHost
from hotswap.ports.hosts import SchemaCheck
from hotswap.ports.node_runtime import SmokeReport
from hotswap.ports.sandbox import SmokeResult
from hotswap.runtime.smoke import run_smoke_test

SMOKE_TENANT = "smoke-test"
"""What the plugin sees as the tenant: no real one's data may be touched."""


async def smoke_host(
    node_id: str, host: SupervisedHost, tests: Sequence[SmokeTest], timeout: timedelta, check_schema: SchemaCheck
) -> SmokeReport:
    """All tests, one after the other, within `timeout`; it ends with the first failure. Never raises for the plugin's fault."""
    results: list[SmokeResult] = []
    detail = ""
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            for test in tests:
                detail = await _one(host, test, timeout, check_schema, results)
                if detail:
                    break
    except TimeoutError:
        detail = f"the smoke tests took longer than {timeout.total_seconds():g} s"
    return SmokeReport(
        node_id=node_id,
        plugin=host.ref.plugin,
        version=host.ref.version,
        passed=not detail,
        smoke_tests=tuple(results),
        detail=bounded(detail),
    )


async def _one(
    host: SupervisedHost,
    test: SmokeTest,
    timeout: timedelta,
    check_schema: SchemaCheck,
    results: list[SmokeResult],
) -> str:
    """The fault, or "" when it passed."""
    if host.evicted:
        with contextlib.suppress(HotSwapError):  # then it is down, and says why
            await host.ensure()
    handle = host.pick()
    if handle is None:
        return f"is down: {host.last_error or 'starting'}"
    begun = perf_counter()
    found = await run_smoke_test(handle, test, SMOKE_TENANT, timeout, check_schema)
    milliseconds = (perf_counter() - begun) * 1000
    results.append(
        SmokeResult(method=test.method, passed=not found.why, duration_ms=milliseconds, detail=bounded(found.why))
    )
    return f"smoke test of '{test.method}': {found.why}" if found.why else ""
